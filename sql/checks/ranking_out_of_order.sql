-- meaning: a ranking whose scores are not in falling order: its first item is not the best one
-- table: ranking_log
-- severity: warning
-- grain: one ranking
-- inputs: ranking_log
-- parameters: $day

select
    request_id,
    user_id,
    scenario
from ranking_log
where ds = $day and scores != list_reverse_sort(scores)
order by request_id, user_id, scenario
