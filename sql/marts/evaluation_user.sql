-- grain: one user with a target or a primary-scenario exposure on the day
--   target: distinct item positively used on the day in any scenario, absent from the history
--   R_u, ITG: those of the user's first request of the day; no request, no ITG
-- inputs: click, exposure and target_group (the day), user_history (the day before)
-- parameters: $day, $yesterday, $primary_scenario, $max_users, $seed

with
history as (
    select
        user_id,
        item_ids,
        event_times,
        scenarios
    from user_history
    where ds = $yesterday
),

target as (
    select
        click.user_id,
        click.item_id,
        min_by(click.scenario, (click.event_time, click.scenario)) as scenario
    from click
    left join history on click.user_id = history.user_id
    where click.ds = $day and not coalesce(list_contains(history.item_ids, click.item_id), false)
    group by click.user_id, click.item_id
),

targets as (
    select
        user_id,
        list(item_id order by item_id) as target_item_ids,
        list(scenario order by item_id) as target_scenarios
    from target
    group by user_id
),

exposed as (
    select
        exposure.user_id,
        list(distinct exposure.item_id order by exposure.item_id) as exposed_item_ids
    from exposure
    left join history on exposure.user_id = history.user_id
    where
        exposure.ds = $day
        and exposure.scenario = $primary_scenario
        and not coalesce(list_contains(history.item_ids, exposure.item_id), false)
    group by exposure.user_id
),

first_request as (
    select
        user_id,
        retrieved_item_ids,
        itg_item_ids
    from target_group
    where ds = $day
    qualify row_number() over (partition by user_id order by event_time, request_id) = 1
),

active as (
    select user_id from targets
    union
    select user_id from exposed
),

chosen as (
    -- a seeded draw where there are more users than are worth measuring
    select user_id
    from active
    order by md5(concat(user_id, ':', $seed)), user_id
    limit $max_users
)

select
    chosen.user_id,
    coalesce(history.item_ids, []::bigint[]) as history_item_ids,
    coalesce(history.event_times, []::timestamp[]) as history_event_times,
    coalesce(history.scenarios, []::varchar[]) as history_scenarios,
    coalesce(targets.target_item_ids, []::bigint[]) as target_item_ids,
    coalesce(targets.target_scenarios, []::varchar[]) as target_scenarios,
    coalesce(exposed.exposed_item_ids, []::bigint[]) as exposed_item_ids,
    coalesce(first_request.retrieved_item_ids, []::bigint[]) as retrieved_item_ids,
    coalesce(first_request.itg_item_ids, []::bigint[]) as itg_item_ids
from chosen
left join history on chosen.user_id = history.user_id
left join targets on chosen.user_id = targets.user_id
left join exposed on chosen.user_id = exposed.user_id
left join first_request on chosen.user_id = first_request.user_id
order by chosen.user_id
