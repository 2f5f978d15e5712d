-- Grain: one row per source row: canonical columns, why it is refused (null = good), the row itself.
-- Inputs: source_rows, what the source gives as its users' past (any types).
-- Parameters: $day_start, start of the source's first day (UTC): a past ends before it.
-- Repeated rows are refused as 'duplicate'.
with parsed as (
    select
        case when regexp_full_match(user_id::varchar, '[0-9]+(\.0*)?') then try_cast(user_id as bigint) end
            as user_id,
        try_cast(item_ids as bigint[]) as item_ids,
        cast(try_cast(last_event_time as timestamptz) as timestamp) as last_event_time,
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
            when item_ids is null then 'item_ids is no list'
            when list_contains(list_transform(item_ids, lambda i: i is null or i < 0), true)
                then 'item_ids holds what is no whole number'
            when source_row.last_event_time is null then 'last_event_time is null'
            when last_event_time is null then 'last_event_time is no time'
            when last_event_time >= $day_start then 'last_event_time is not before the first day'
        end as fault
    from parsed
),

numbered as (
    select
        *,
        row_number() over (
            partition by fault is null, user_id, item_ids, last_event_time
            order by source_row
        ) as nth_copy,
        dense_rank() over (
            partition by fault is null, user_id order by last_event_time desc, item_ids
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
    user_id,
    item_ids,
    last_event_time,
    reject_reason,
    case when reject_reason is not null then to_json(source_row)::varchar end as source_row
from decided
order by user_id, reject_reason nulls first, source_row
