-- meaning: a ranking that holds the same item more than once
-- table: ranking_log
-- severity: warning
-- grain: one ranking
-- inputs: ranking_log
-- parameters: $day

select
    request_id,
    user_id,
    scenario,
    len(item_ids) - len(list_distinct(item_ids)) as n_repeated
from ranking_log
where ds = $day and len(item_ids) > len(list_distinct(item_ids))
order by request_id, user_id, scenario
