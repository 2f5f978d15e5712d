-- meaning: a ranked item that the day's item snapshot lacks
-- table: ranking_log
-- severity: warning
-- grain: one item
-- inputs: ranking_log, item
-- parameters: $day

with
ranked as (
    select unnest(item_ids) as item_id
    from ranking_log
    where ds = $day
)

select
    ranked.item_id,
    count(*) as n_rankings
from ranked
anti join item
    on item.ds = $day and item.item_id = ranked.item_id
group by ranked.item_id
order by ranked.item_id
