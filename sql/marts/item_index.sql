-- grain: one item ever seen, with its dense index; append-only
-- inputs: yesterday (item_index of the day before), item (the day), click (the day), initial_history
-- parameters: $day

with
seen as (
    select item_id from item
    where ds = $day
    union
    select item_id from click
    where ds = $day
    union
    select unnest(item_ids) as item_id from initial_history
    where ds <= $day
),

appended as (
    select seen.item_id from seen
    anti join yesterday on seen.item_id = yesterday.item_id
)

select
    item_id,
    item_index,
    first_day
from yesterday
union all
select
    item_id,
    (select coalesce(max(item_index), 0) from yesterday)
    + row_number() over (order by item_id) as item_index,
    $day as first_day
from appended
order by item_index
