-- Grain: one row per source row of the day: canonical columns, why it is refused (null = good), the row itself.
-- Inputs: source_rows, what the source gives for the day (any types).
-- Repeated rows are refused as 'duplicate'.
with parsed as (
    select
        case when regexp_full_match(item_id::varchar, '[0-9]+(\.0*)?') then try_cast(item_id as bigint) end
            as item_id,
        case
            when regexp_full_match(category_id::varchar, '-?[0-9]+(\.0*)?') then try_cast(category_id as bigint)
        end as category_id,
        case when regexp_full_match(author_id::varchar, '-?[0-9]+(\.0*)?') then try_cast(author_id as bigint) end
            as author_id,
        case when regexp_full_match(brand_id::varchar, '-?[0-9]+(\.0*)?') then try_cast(brand_id as bigint) end
            as brand_id,
        try_cast(price as float) as price,
        try_cast(is_available as boolean) as is_available,
        source_rows as source_row
    from source_rows
),

judged as (
    select
        *,
        case
            when source_row.read_error is not null then source_row.read_error
            when source_row.item_id is null then 'item_id is null'
            when item_id is null then 'item_id is no whole number'
            when category_id is null and source_row.category_id is not null then 'category_id is no whole number'
            when author_id is null and source_row.author_id is not null then 'author_id is no whole number'
            when brand_id is null and source_row.brand_id is not null then 'brand_id is no whole number'
            when price is null and source_row.price is not null then 'price is no number'
            when isnan(price) or isinf(price) or price < 0 then 'price is no price'
            when is_available is null then 'is_available is no truth value'
        end as fault
    from parsed
),

numbered as (
    select
        *,
        row_number() over (
            partition by fault is null, item_id, category_id, author_id, brand_id, price, is_available
            order by source_row
        ) as nth_copy,
        dense_rank() over (
            partition by fault is null, item_id
            order by
                is_available desc, category_id nulls last, author_id nulls last, brand_id nulls last, price nulls last
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
    item_id,
    category_id,
    author_id,
    brand_id,
    price,
    is_available,
    reject_reason,
    case when reject_reason is not null then to_json(source_row)::varchar end as source_row
from decided
order by item_id, reject_reason nulls first, source_row
