-- meaning: a scenario's share of the exposures is far from its share of the days before
-- table: exposure
-- severity: warning
-- grain: one scenario
-- inputs: exposure, trailing_exposure
-- parameters: $day, $max_scenario_drift

with
today as (
    select
        scenario,
        count(*) / sum(count(*)) over () as share
    from exposure
    where ds = $day
    group by scenario
),

before as (
    select
        scenario,
        count(*) / sum(count(*)) over () as share
    from trailing_exposure
    where ds < $day
    group by scenario
)

select
    scenario,
    coalesce(today.share, 0) as share,
    coalesce(before.share, 0) as trailing_share
from today
full join before using (scenario)
where abs(coalesce(today.share, 0) - coalesce(before.share, 0)) > $max_scenario_drift
order by scenario
