-- grain: one request with at least one target; each (user, item) is a target of a kind once a day,
--   at the latest request before its last event
-- inputs: target_group (the day)
-- parameters: $day

with
listed as (
    select
        request_id,
        user_id,
        event_time,
        'rtg' as target_group,
        unnest(rtg_item_ids) as item_id
    from target_group
    where ds = $day
    union all
    select
        request_id,
        user_id,
        event_time,
        'itg' as target_group,
        unnest(itg_item_ids) as item_id
    from target_group
    where ds = $day
    union all
    select
        request_id,
        user_id,
        event_time,
        'etg' as target_group,
        unnest(etg_item_ids) as item_id
    from target_group
    where ds = $day
),

latest as (
    -- an item is either a positive target (of RTG or ITG) or an exposed one: both may hold
    select *
    from listed
    qualify row_number() over (
        partition by user_id, item_id, target_group = 'etg'
        order by event_time desc, request_id desc
    ) = 1
),

grouped as (
    select
        request_id,
        list(item_id order by item_id) filter (target_group = 'rtg') as rtg_item_ids,
        list(item_id order by item_id) filter (target_group = 'itg') as itg_item_ids,
        list(item_id order by item_id) filter (target_group = 'etg') as etg_item_ids
    from latest
    group by request_id
)

select
    target_group.request_id,
    target_group.user_id,
    target_group.event_time,
    target_group.history_item_ids,
    target_group.history_event_times,
    target_group.history_scenarios,
    coalesce(grouped.rtg_item_ids, []::bigint[]) as rtg_item_ids,
    coalesce(grouped.itg_item_ids, []::bigint[]) as itg_item_ids,
    coalesce(grouped.etg_item_ids, []::bigint[]) as etg_item_ids
from target_group
inner join grouped on target_group.request_id = grouped.request_id
where target_group.ds = $day
order by target_group.user_id, target_group.event_time, target_group.request_id
