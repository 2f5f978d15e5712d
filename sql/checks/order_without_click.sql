-- meaning: an order of an item whose exposure was not clicked: clicks or orders were joined wrongly
-- table: exposure
-- severity: warning
-- grain: one bad exposure
-- inputs: exposure
-- parameters: $day

select
    user_id,
    item_id,
    event_time
from exposure
where ds = $day and is_order and not is_click
order by user_id, event_time, item_id
