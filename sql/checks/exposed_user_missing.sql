-- meaning: an exposure to a user that the day's user snapshot lacks: the user tower gets no profile
-- table: exposure
-- severity: warning
-- grain: one user
-- inputs: exposure, user
-- parameters: $day

select
    exposure.user_id,
    count(*) as n_exposures
from exposure
anti join "user"
    on "user".ds = $day and "user".user_id = exposure.user_id
where exposure.ds = $day
group by exposure.user_id
order by exposure.user_id
