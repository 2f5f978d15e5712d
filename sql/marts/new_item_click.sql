-- grain: the first click of the day by one user on one item that the history before the day does not hold
-- inputs: click (the day), user_history (the day before)
-- parameters: $day, $yesterday

with
held as (
    select
        user_id,
        unnest(item_ids) as item_id
    from user_history
    where ds = $yesterday
),

first_click as (
    select
        click.user_id,
        click.item_id,
        min(click.event_time) as event_time
    from click
    anti join held on click.user_id = held.user_id and click.item_id = held.item_id
    where click.ds = $day
    group by click.user_id, click.item_id
)

select
    row_number() over (order by user_id, event_time, item_id) as request_id,
    user_id,
    event_time,
    item_id
from first_click
order by user_id, event_time, item_id
