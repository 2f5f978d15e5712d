-- grain: one value of one feature on one day, counted over the day's exposures; value is null where unknown
--   features: scenario, hour (UTC), category, author, brand, price (in powers of two)
-- inputs: exposure, item (the days)
-- parameters: none

with
shown as (
    select
        ds,
        item_id,
        scenario,
        extract(hour from event_time) as hour,
        count(*) as n_rows,
        count(*) filter (where is_click) as n_clicks
    from exposure
    group by ds, item_id, scenario, hour
),

featured as (
    select
        shown.ds,
        shown.n_rows,
        shown.n_clicks,
        shown.scenario,
        lpad(cast(shown.hour as varchar), 2, '0') as hour,
        cast(item.category_id as varchar) as category,
        cast(item.author_id as varchar) as author,
        cast(item.brand_id as varchar) as brand,
        case
            when item.price >= 0
                then 'below ' || cast(pow(2, floor(log2(1 + item.price)) + 1) - 1 as bigint)
        end as price
    from shown
    left join item on shown.ds = item.ds and shown.item_id = item.item_id
),

counted as (
    select ds, 'scenario' as feature, scenario as value, n_rows, n_clicks from featured
    union all
    select ds, 'hour' as feature, hour as value, n_rows, n_clicks from featured
    union all
    select ds, 'category' as feature, category as value, n_rows, n_clicks from featured
    union all
    select ds, 'author' as feature, author as value, n_rows, n_clicks from featured
    union all
    select ds, 'brand' as feature, brand as value, n_rows, n_clicks from featured
    union all
    select ds, 'price' as feature, price as value, n_rows, n_clicks from featured
)

select
    ds,
    feature,
    value,
    cast(sum(n_rows) as bigint) as n_rows,
    cast(sum(n_clicks) as bigint) as n_clicks
from counted
group by ds, feature, value
order by ds, feature, value nulls first
