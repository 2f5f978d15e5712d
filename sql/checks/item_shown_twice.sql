-- meaning: one request shows the same item more than once: rows were repeated on their way
-- table: exposure
-- severity: warning
-- grain: one request and item
-- inputs: exposure
-- parameters: $day

select
    request_id,
    item_id,
    count(*) as n_rows
from exposure
where ds = $day and request_id is not null
group by request_id, item_id
having count(*) > 1
order by request_id, item_id
