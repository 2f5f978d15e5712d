-- Grain: one row per source row of the day: canonical columns, why it is refused (null = good), the row itself.
-- Inputs: source_rows, what the source gives for the day (any types).
-- Parameters: $earliest, first valid event time (UTC); $day_end, first instant after the day (UTC).
-- Repeated rows are refused as 'duplicate'. A retrieval that found nothing is a good row.
with parsed as (
    select
        case when regexp_full_match(request_id::varchar, '[0-9]+(\.0*)?') then try_cast(request_id as bigint) end
            as request_id,
        case when regexp_full_match(user_id::varchar, '[0-9]+(\.0*)?') then try_cast(user_id as bigint) end
            as user_id,
        scenario::varchar as scenario,
        cast(try_cast(event_time as timestamptz) as timestamp) as event_time,
        channel::varchar as channel,
        try_cast(item_ids as bigint[]) as item_ids,
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
            when scenario is null then 'scenario is null'
            when source_row.event_time is null then 'event_time is null'
            when event_time is null then 'event_time is no time'
            when event_time < $earliest then 'event_time is more than an hour before the day'
            when event_time >= $day_end then 'event_time is after the end of the day'
            when item_ids is null then 'item_ids is no list'
            when list_contains(list_transform(item_ids, lambda i: i is null or i < 0), true)
                then 'item_ids holds what is no whole number'
            when request_id is null and source_row.request_id is not null then 'request_id is no whole number'
        end as fault
    from parsed
),

numbered as (
    select
        *,
        row_number() over (
            partition by fault is null, user_id, event_time, scenario, channel, request_id, item_ids
            order by source_row
        ) as nth_copy,
        dense_rank() over (
            partition by fault is null, user_id, event_time, scenario, channel, request_id
            order by item_ids
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
    scenario,
    event_time,
    channel,
    item_ids,
    reject_reason,
    case when reject_reason is not null then to_json(source_row)::varchar end as source_row
from decided
order by user_id, event_time, scenario, channel, request_id, reject_reason nulls first, source_row
