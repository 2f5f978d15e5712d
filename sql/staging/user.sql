-- Grain: one row per source row of the day: canonical columns, why it is refused (null = good), the row itself.
-- Inputs: source_rows, what the source gives for the day (any types).
-- Repeated rows are refused as 'duplicate'.
with parsed as (
    select
        case when regexp_full_match(user_id::varchar, '[0-9]+(\.0*)?') then try_cast(user_id as bigint) end
            as user_id,
        list_sort(try_cast(profile as varchar[])) as profile,
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
            when profile is null then 'profile is no list'
            when list_contains(list_transform(profile, lambda p: p is null or not contains(p, '=')), true)
                then 'profile holds what is not name=value'
        end as fault
    from parsed
),

numbered as (
    select
        *,
        row_number() over (
            partition by fault is null, user_id, profile
            order by source_row
        ) as nth_copy,
        dense_rank() over (partition by fault is null, user_id order by profile) as nth_content
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
    profile,
    reject_reason,
    case when reject_reason is not null then to_json(source_row)::varchar end as source_row
from decided
order by user_id, reject_reason nulls first, source_row
