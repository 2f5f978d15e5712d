-- grain: one primary-scenario request with R_u and its target groups
--   X_u: positive events in any scenario from T1 to the end of the horizon, not yet in the history
--   RTG = X_u in R_u, ITG = X_u outside R_u, ETG = items that the request exposed
-- inputs: request_history (sql/marts/request_history.sql, with retrieved_item_ids added), click (the day)
-- parameters: $day

with
target as (
    select distinct
        request_history.request_id,
        click.item_id,
        list_contains(request_history.retrieved_item_ids, click.item_id) as is_retrieved
    from request_history
    inner join click
        on
            request_history.user_id = click.user_id
            and click.event_time >= request_history.event_time
    where
        click.ds = $day
        and not list_contains(request_history.history_item_ids, click.item_id)
),

grouped as (
    select
        request_id,
        list(item_id order by item_id) filter (is_retrieved) as rtg_item_ids,
        list(item_id order by item_id) filter (not is_retrieved) as itg_item_ids
    from target
    group by request_id
)

select
    request_history.request_id,
    request_history.user_id,
    request_history.event_time,
    request_history.history_item_ids,
    request_history.history_event_times,
    request_history.history_scenarios,
    request_history.retrieved_item_ids,
    coalesce(grouped.rtg_item_ids, []::bigint[]) as rtg_item_ids,
    coalesce(grouped.itg_item_ids, []::bigint[]) as itg_item_ids,
    request_history.exposed_item_ids as etg_item_ids
from request_history
left join grouped on request_history.request_id = grouped.request_id
order by request_history.user_id, request_history.event_time, request_history.request_id
