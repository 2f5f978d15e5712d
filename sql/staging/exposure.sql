-- Grain: one row per source row of the day: canonical columns, why it is refused (null = good), the row itself.
-- Inputs: source_rows, what the source gives for the day (any types).
-- Parameters: $earliest, first valid event time (UTC); $day_end, first instant after the day (UTC).
-- Of rows with one key the one with the most behaviour stays; repeated rows are refused as 'duplicate'.
with parsed as (
    select
        case when regexp_full_match(request_id::varchar, '[0-9]+(\.0*)?') then try_cast(request_id as bigint) end
            as request_id,
        case when regexp_full_match(user_id::varchar, '[0-9]+(\.0*)?') then try_cast(user_id as bigint) end
            as user_id,
        case when regexp_full_match(item_id::varchar, '[0-9]+(\.0*)?') then try_cast(item_id as bigint) end
            as item_id,
        scenario::varchar as scenario,
        cast(try_cast(event_time as timestamptz) as timestamp) as event_time,
        case when regexp_full_match(position::varchar, '[0-9]+(\.0*)?') then try_cast(position as integer) end
            as position,
        try_cast(is_click as boolean) as is_click,
        try_cast(is_order as boolean) as is_order,
        source_rows as source_row
    from source_rows
),

judged as (
    select
        *,
        case
            when source_row.read_error is not null then source_row.read_error
            when source_row.user_id is null then 'user_id is null'
            when user_id is null then 'user_id is no whole number'
            when source_row.item_id is null then 'item_id is null'
            when item_id is null then 'item_id is no whole number'
            when scenario is null then 'scenario is null'
            when source_row.event_time is null then 'event_time is null'
            when event_time is null then 'event_time is no time'
            when event_time < $earliest then 'event_time is more than an hour before the day'
            when event_time >= $day_end then 'event_time is after the end of the day'
            when is_click is null then 'is_click is no truth value'
            when is_order is null then 'is_order is no truth value'
            when request_id is null and source_row.request_id is not null then 'request_id is no whole number'
            when position is null and source_row.position is not null then 'position is no whole number'
        end as fault
    from parsed
),

numbered as (
    select
        *,
        row_number() over (
            partition by
                fault is null, user_id, event_time, scenario, item_id, request_id, position, is_click, is_order
            order by source_row
        ) as nth_copy,
        dense_rank() over (
            partition by fault is null, user_id, event_time, scenario, item_id
            order by is_order desc, is_click desc, position asc nulls last, request_id asc nulls last
        ) as nth_content
    from judged
),

decided as (
    select
        *,
        case
            when fault is not null then fault
            when nth_copy > 1 then 'duplicate'
            when nth_content > 1 then 'duplicate key, other content'
        end as reject_reason
    from numbered
)

select
    request_id,
    user_id,
    item_id,
    scenario,
    event_time,
    position,
    is_click,
    is_order,
    reject_reason,
    case when reject_reason is not null then to_json(source_row)::varchar end as source_row
from decided
order by user_id, event_time, scenario, item_id, reject_reason nulls first, source_row
