-- grain: one value of one profile feature on one day, counted over the users who were shown something
-- inputs: exposure, user (the days)
-- parameters: none

with
active as (
    select distinct
        ds,
        user_id
    from exposure
),

token as (
    select
        active.ds,
        unnest("user".profile) as token
    from active
    inner join "user" on active.ds = "user".ds and active.user_id = "user".user_id
)

select
    ds,
    split_part(token, '=', 1) as feature,
    substr(token, strpos(token, '=') + 1) as value,
    count(*) as n_rows
from token
group by all
order by ds, feature, value
