-- meaning: a profile feature that is not written as name=value
-- table: user
-- severity: warning
-- grain: one user and feature
-- inputs: user
-- parameters: $day

with
feature as (
    select
        user_id,
        unnest(profile) as feature
    from "user"
    where ds = $day
)

select
    user_id,
    feature
from feature
where feature is null or not regexp_matches(feature, '^[^=]+=')
order by user_id, feature
