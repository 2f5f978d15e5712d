-- grain: one positive event (click or order) of a user on an item, in any scenario
-- inputs: exposure (the day)
-- parameters: $day

select distinct
    user_id,
    item_id,
    scenario,
    event_time
from exposure
where ds = $day and (is_click or is_order)
order by user_id, event_time, item_id, scenario
