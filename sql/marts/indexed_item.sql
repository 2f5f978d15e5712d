-- grain: one item with a dense index, with its side features as of the day (null where it has none)
-- inputs: item_index (the day), item (the day)
-- parameters: $day

select
    item_index.item_id,
    item_index.item_index,
    item.category_id,
    item.author_id,
    item.brand_id,
    item.price,
    coalesce(item.is_available, false) as is_available
from item_index
left join item on item_index.item_id = item.item_id and item.ds = $day
where item_index.ds = $day
order by item_index.item_id
