-- meaning: a retrieved item that the day's item snapshot lacks
-- table: retrieval_log
-- severity: warning
-- grain: one item
-- inputs: retrieval_log, item
-- parameters: $day

with
retrieved as (
    select unnest(item_ids) as item_id
    from retrieval_log
    where ds = $day
)

select
    retrieved.item_id,
    count(*) as n_retrievals
from retrieved
anti join item
    on item.ds = $day and item.item_id = retrieved.item_id
group by retrieved.item_id
order by retrieved.item_id
