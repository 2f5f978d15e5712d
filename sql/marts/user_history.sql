-- grain: one user with a positive event in the window
-- inputs: window_click (sql/marts/window_click.sql)
-- parameters: $history_length

with
last_use as (
    -- of the same item: its latest use, and of uses at one time the last scenario by name
    select
        user_id,
        item_id,
        max(event_time) as event_time,
        max_by(place, (event_time, place)) as place,
        max_by(scenario, (event_time, place, scenario)) as scenario
    from window_click
    group by user_id, item_id
),

recent as (
    select
        *,
        row_number() over (
            partition by user_id
            order by event_time desc, place desc, item_id desc
        ) as age
    from last_use
)

select
    user_id,
    list(item_id order by age desc) as item_ids,
    list(event_time order by age desc) as event_times,
    list(scenario order by age desc) as scenarios
from recent
where age <= $history_length
group by user_id
order by user_id
