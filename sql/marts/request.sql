-- grain: one primary-scenario request; where logs carry no request ids, one visit (30-minute gap)
-- inputs: exposure (the day)
-- parameters: $day, $primary_scenario, $visit_gap_seconds

with
shown as (
    select
        user_id,
        item_id,
        event_time,
        request_id,
        coalesce(
            date_diff('second', lag(event_time) over visit, event_time) > $visit_gap_seconds, true
        ) as is_start
    from exposure
    where ds = $day and scenario = $primary_scenario
    window visit as (partition by user_id order by event_time, item_id)
),

numbered as (
    select
        *,
        sum(is_start::int) over (
            partition by user_id
            order by event_time, item_id
            rows unbounded preceding
        ) as visit_number
    from shown
),

grouped as (
    select
        user_id,
        request_id,
        case when request_id is null then visit_number end as visit_number,
        min(event_time) as event_time,
        list(distinct item_id order by item_id) as exposed_item_ids
    from numbered
    group by all
)

select
    -- numbered anew: logged ids may be missing on some rows
    row_number() over (order by user_id, event_time, request_id, visit_number) as request_id,
    user_id,
    event_time,
    exposed_item_ids
from grouped
order by user_id, event_time, request_id
