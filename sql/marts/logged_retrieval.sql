-- grain: one request (or user, at a moment) with R_u as it was logged, null where no retrieval answers it
--   the user's latest retrieval in the primary scenario at or before the request, no older than the gap; a
--   retrieval is the rows of one request id, or of one moment where logs carry none; its channels' lists are
--   merged place by place
-- inputs: request (request_id, user_id, event_time), retrieval_log (the day and the day before)
-- parameters: $day, $yesterday, $primary_scenario, $visit_gap_seconds

with
logged as (
    select
        user_id,
        request_id as logged_id,
        channel,
        item_ids,
        max(event_time) over (
            partition by user_id, request_id, case when request_id is null then event_time end
        ) as event_time
    from retrieval_log
    where ds between $yesterday and $day and scenario = $primary_scenario
),

answer as (
    select
        request.request_id,
        logged.channel,
        logged.item_ids
    from request
    inner join logged
        on
            request.user_id = logged.user_id
            and logged.event_time <= request.event_time
            and date_diff('second', logged.event_time, request.event_time) <= $visit_gap_seconds
    qualify dense_rank() over (
        partition by request.request_id
        order by logged.event_time desc, logged.logged_id desc nulls last
    ) = 1
),

placed as (
    select
        request_id,
        channel,
        unnest(item_ids) as item_id,
        generate_subscripts(item_ids, 1) as place
    from answer
),

first_place as (
    select
        *,
        row_number() over (partition by request_id, item_id order by place, channel nulls last) as nth
    from placed
),

ranked as (
    select
        request_id,
        item_id,
        row_number() over (partition by request_id order by place, channel nulls last, item_id) as rank
    from first_place
    where nth = 1
),

listed as (
    select
        request_id,
        list(item_id order by rank) as item_ids
    from ranked
    group by request_id
),

answered as (
    select distinct request_id from answer
)

select
    request.request_id,
    case when answered.request_id is not null then coalesce(listed.item_ids, []::bigint[]) end
        as retrieved_item_ids
from request
left join answered on request.request_id = answered.request_id
left join listed on request.request_id = listed.request_id
order by request.request_id
