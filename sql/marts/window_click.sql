-- grain: one positive event of the window; the warm start's items carry their user's last time and no
--   scenario, which is the empty text
-- inputs: click (the window's days), initial_history (the source's first day)
-- parameters: $first_day and $last_day of the window, $window_start (UTC time at which it starts)

with
logged as (
    select
        user_id,
        item_id,
        scenario,
        event_time,
        0 as place
    from click
    where ds between $first_day and $last_day
),

brought as (
    select
        user_id,
        unnest(item_ids) as item_id,
        '' as scenario,
        last_event_time as event_time,
        generate_subscripts(item_ids, 1) - len(item_ids) as place
    from initial_history
    where ds is not null and last_event_time >= $window_start
)

select
    user_id,
    item_id,
    scenario,
    event_time,
    place
from logged
union all
select
    user_id,
    item_id,
    scenario,
    event_time,
    place
from brought
order by user_id, event_time, place, item_id, scenario
