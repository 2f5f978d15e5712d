-- meaning: a price that is NaN or infinite
-- table: item
-- severity: warning
-- grain: one item
-- inputs: item
-- parameters: $day

select
    item_id,
    price
from item
where ds = $day and not isfinite(price)
order by item_id
