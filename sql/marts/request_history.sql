-- grain: one request, with the user's history strictly before it: the day before's plus the day's clicks
-- inputs: request (sql/marts/request.sql or new_item_click.sql), user_history (the day before), click (the day)
-- parameters: $day, $yesterday, $history_length

with
clicked_before as (
    select
        request.request_id,
        click.item_id,
        max(click.event_time) as event_time,
        max_by(click.scenario, (click.event_time, click.scenario)) as scenario
    from request
    inner join click
        on request.user_id = click.user_id and click.event_time < request.event_time
    where click.ds = $day
    group by request.request_id, click.item_id
),

brought as (
    select
        request.request_id,
        unnest(user_history.item_ids) as item_id,
        list_extract(user_history.event_times, generate_subscripts(user_history.item_ids, 1)) as event_time,
        list_extract(user_history.scenarios, generate_subscripts(user_history.item_ids, 1)) as scenario,
        generate_subscripts(user_history.item_ids, 1) as place
    from request
    inner join user_history on request.user_id = user_history.user_id
    where user_history.ds = $yesterday
),

history as (
    select
        request_id,
        item_id,
        event_time,
        scenario,
        true as is_of_today,
        0 as place
    from clicked_before
    union all
    select
        request_id,
        item_id,
        event_time,
        scenario,
        false as is_of_today,
        place
    from brought
    anti join clicked_before
        on brought.request_id = clicked_before.request_id and brought.item_id = clicked_before.item_id
),

recent as (
    select
        *,
        row_number() over (
            partition by request_id
            order by is_of_today desc, event_time desc, place desc, item_id desc
        ) as age
    from history
),

listed as (
    select
        request_id,
        list(item_id order by age desc) as history_item_ids,
        list(event_time order by age desc) as history_event_times,
        list(scenario order by age desc) as history_scenarios
    from recent
    where age <= $history_length
    group by request_id
)

select
    request.*,
    coalesce(listed.history_item_ids, []::bigint[]) as history_item_ids,
    coalesce(listed.history_event_times, []::timestamp[]) as history_event_times,
    coalesce(listed.history_scenarios, []::varchar[]) as history_scenarios
from request
left join listed on request.request_id = listed.request_id
order by request.user_id, request.event_time, request.request_id
