-- grain: one visit of a user to a scenario: stands in for a ranking where a source logs none
--   a visit ends before a pause longer than the gap, and with the day; it is known from its last exposure on
--   its items in the order in which they were shown; the score falls with the place and means nothing else
-- inputs: exposure and item (the day)
-- parameters: $day, $visit_gap_seconds, $first_request_id

with
shown as (
    select
        user_id,
        scenario,
        item_id,
        event_time,
        coalesce(
            date_diff('second', lag(event_time) over visit, event_time) > $visit_gap_seconds, true
        ) as is_start
    from exposure
    where ds = $day
    window visit as (partition by user_id, scenario order by event_time, item_id)
),

numbered as (
    select
        *,
        sum(is_start::int) over (
            partition by user_id, scenario
            order by event_time, item_id
            rows unbounded preceding
        ) as visit_number
    from shown
),

distinct_item as (
    select
        user_id,
        scenario,
        visit_number,
        item_id,
        min(event_time) as first_time,
        max(event_time) as last_time
    from numbered
    group by user_id, scenario, visit_number, item_id
),

placed as (
    select
        distinct_item.*,
        coalesce(item.category_id, -1) as category_id,
        row_number() over (
            partition by distinct_item.user_id, distinct_item.scenario, distinct_item.visit_number
            order by distinct_item.first_time, distinct_item.item_id
        ) as place
    from distinct_item
    left join item on distinct_item.item_id = item.item_id and item.ds = $day
),

visit as (
    select
        user_id,
        scenario,
        max(last_time) as event_time,
        list(item_id order by place) as item_ids,
        list(category_id order by place) as category_ids,
        list((1.0 / place)::float order by place) as scores
    from placed
    group by user_id, scenario, visit_number
)

select
    $first_request_id + row_number() over (order by user_id, event_time, scenario) as request_id,
    user_id,
    scenario,
    event_time,
    item_ids,
    category_ids,
    scores
from visit
order by user_id, event_time, scenario
