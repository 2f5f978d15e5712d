-- grain: one item that was clicked in the window or shown on its last day, with its counts up to then
-- inputs: click (the window's days), exposure (the last day)
-- parameters: $first_day and $day of the window, $third_day (the last day but two)

with
clicked as (
    select
        item_id,
        sum(case when ds = $day then 1 else 0 end) as n_clicks_day,
        sum(case when ds >= $third_day then 1 else 0 end) as n_clicks_3_days,
        count(*) as n_clicks_window
    from click
    where ds between $first_day and $day
    group by item_id
),

shown as (
    select
        item_id,
        count(*) as n_exposures_day
    from exposure
    where ds = $day
    group by item_id
)

select
    coalesce(clicked.item_id, shown.item_id) as item_id,
    cast(coalesce(clicked.n_clicks_day, 0) as bigint) as n_clicks_day,
    cast(coalesce(clicked.n_clicks_3_days, 0) as bigint) as n_clicks_3_days,
    cast(coalesce(clicked.n_clicks_window, 0) as bigint) as n_clicks_window,
    cast(coalesce(shown.n_exposures_day, 0) as bigint) as n_exposures_day
from clicked
full outer join shown on clicked.item_id = shown.item_id
order by item_id
