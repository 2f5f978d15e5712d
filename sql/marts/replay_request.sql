-- grain: one primary-scenario request, with what the user did from it on
--   targets: positive events in any scenario from the request to the end of the day, not in the history
--   exposed items: what the request showed, and whether it was clicked or ordered there before the next one
-- inputs: target_group and exposure (the day)
-- parameters: $day, $primary_scenario

with
request as (
    select
        request_id,
        user_id,
        event_time,
        history_item_ids,
        rtg_item_ids,
        itg_item_ids,
        etg_item_ids,
        lag(event_time) over (partition by user_id order by event_time desc, request_id desc) as next_time
    from target_group
    where ds = $day
),

used as (
    select
        request.request_id,
        exposure.item_id,
        max(exposure.is_click::int) > 0 as is_click,
        max(exposure.is_order::int) > 0 as is_order
    from request
    inner join exposure
        on
            request.user_id = exposure.user_id
            and request.event_time <= exposure.event_time
            and exposure.event_time < coalesce(request.next_time, timestamp '9999-12-31')
    where
        exposure.ds = $day
        and exposure.scenario = $primary_scenario
        and list_contains(request.etg_item_ids, exposure.item_id)
    group by request.request_id, exposure.item_id
),

exposed as (
    select
        request_id,
        list(item_id order by item_id) as exposed_item_ids,
        list(is_click order by item_id) as exposed_is_click,
        list(is_order order by item_id) as exposed_is_order
    from used
    group by request_id
)

select
    request.request_id,
    request.user_id,
    request.event_time,
    request.history_item_ids,
    request.rtg_item_ids,
    request.itg_item_ids,
    coalesce(exposed.exposed_item_ids, []::bigint[]) as exposed_item_ids,
    coalesce(exposed.exposed_is_click, []::boolean[]) as exposed_is_click,
    coalesce(exposed.exposed_is_order, []::boolean[]) as exposed_is_order
from request
left join exposed on request.request_id = exposed.request_id
order by request.user_id, request.event_time, request.request_id
