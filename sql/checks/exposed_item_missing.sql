-- meaning: an exposure of an item that the day's item snapshot lacks: it can be neither indexed nor served
-- table: exposure
-- severity: warning
-- grain: one bad exposure
-- inputs: exposure, item
-- parameters: $day

select
    exposure.item_id,
    exposure.user_id,
    exposure.event_time
from exposure
anti join item
    on item.ds = $day and item.item_id = exposure.item_id
where exposure.ds = $day
order by exposure.item_id, exposure.user_id, exposure.event_time
