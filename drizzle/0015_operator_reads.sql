-- What operators read: replays that have an event still to deliver, retries counted alike, and the earlier names of a subscription.
--
-- It replaces what earlier files define: bus.event_replays (0010), bus.read_retries and bus.read_tenants (0008).

-- Indexes.

-- The few records of renames: which name a subscription had before.
create index audit_rename_idx on bus.audit (id) where action = 'subscriptions.rename';
--> statement-breakpoint

-- Functions.

-- What became of an event in replays, of the latest thousand, latest first: of those that have delivered it, or have tried to, and of those
-- that go on and have it still to deliver. `waiting` and `delivering`: its job is in the queue. `planned`: the replay has yet to come to it, and
-- then decides. At most 1,000 jobs in the background of a queue are looked at, and as many that run: replays keep no more there. Everything
-- else is looked up by index. Only reads.
create or replace function bus.event_replays(of_event uuid)
returns table (subscription text, operation_id uuid, state text, attempts int, failure jsonb, due_at timestamptz, settled_at timestamptz, duration_ms real)
language plpgsql stable as $body$
#variable_conflict use_column
declare
  event record;
  -- Replays that go on, and of these the ones with a job that holds the event.
  open_ids int[];
  jobs jsonb;
begin
  select e.tenant_id, e.type, e.correlation_id, e.subject,
    e.erased_at is null and not exists (select from bus.cancellations c where c.event_id = e.id) as is_replayable
  into event from bus.events e where e.id = of_event;
  open_ids := array(
    select r.id from (select r.* from bus.replays r order by r.id limit 1000) r
    join bus.operations o on o.id = r.operation_id and o.state in ('running', 'paused', 'stopped'));
  select jsonb_agg(r.job) into jobs
  from bus.read_each(array(
    select format($job$
      select distinct on (1) (b.data -> 'replay' ->> 'ledgerId')::int as replay_id, b.state = 'active' as is_active
      from (
        (select b.data, b.state from pgboss.job b
        where b.name = %1$L and b.state < 'active' and not b.blocked and b.priority <= -2000000000
        order by b.priority desc, b.created_on limit 1000)
        union all
        (select b.data, b.state from pgboss.job b where b.name = %1$L and b.state = 'active' limit 1000)
      ) b
      where b.data ? 'replay' and b.data -> 'eventIds' ? %2$L
      order by 1, b.state desc
    $job$, q.name, of_event)
    from (
      select distinct 'bus.' || s.name as name
      from bus.replays r join bus.subscriptions s on s.id = r.subscription_id
      where r.id = any (open_ids)
    ) q
  )) as r (job);
  return query
  select s.name, r.operation_id,
    case
      when coalesce(d.erased, false) then 'erased'
      when d.expired then 'expired'
      when d.settled_at is not null then 'delivered'
      when j.is_active then 'delivering'
      when f.state = 'retrying' then 'retrying'
      when f.state is not null or k.state = 'parked' then 'dead'
      when j.is_active is not null or k.state is not null then 'waiting'
      else 'planned' end,
    coalesce(d.attempts, f.attempts, 0)::int,
    case when d.settled_at is null then (
      select jsonb_strip_nulls(jsonb_build_object('name', a.error_name, 'code', a.error_code, 'message', a.error_message, 'at', a.ended_at))
      from bus.attempts a
      where a.event_id = of_event and a.subscription_id = r.id and not a.succeeded order by a.ended_at desc limit 1) end,
    case when d.settled_at is null then f.next_attempt_at end,
    d.settled_at, d.duration_ms
  from (select r.* from bus.replays r order by r.id limit 1000) r
  join bus.subscriptions s on s.id = r.subscription_id
  left join lateral (
    select x.attempts, x.expired, x.erased, x.delivered_at as settled_at, x.duration_ms
    from bus.receipts x where x.subscription_id = r.id and x.event_id = of_event
    union all
    select 1, false, false, b.delivered_at, b.durations_ms[array_position(b.event_ids, of_event)]
    from bus.receipt_batches b
    where b.subscription_id = r.id and b.event_id <= of_event and b.event_id >= bus.receipt_span_floor(of_event)
      and b.last_event_id >= of_event and of_event = any (b.event_ids)
    limit 1) d on true
  left join bus.failing f on f.subscription_id = r.id and f.event_id = of_event
  left join lateral (
    select (x.value ->> 'is_active')::boolean as is_active from jsonb_array_elements(coalesce(jobs, '[]')) x
    where (x.value ->> 'replay_id')::int = r.id and r.id = any (open_ids) limit 1) j on true
  left join lateral (
    select k.state from bus.ordered_events e join bus.ordered_keys k on k.id = e.key_id and e.seq > k.done_seq
    where e.replay_id = r.id and e.event_id = of_event and r.id = any (open_ids) limit 1) k on true
  left join lateral (
    select true as is_planned
    from (select o.selection -> 'stored' as chosen, o.progress from bus.operations o where o.id = r.operation_id) o
    where r.id = any (open_ids) and event.is_replayable and coalesce(o.progress ->> 'isRead', 'false') <> 'true'
      and of_event > coalesce(o.progress ->> 'cursor', o.chosen ->> 'fromId')::uuid and of_event <= (o.chosen ->> 'untilId')::uuid
      and coalesce(o.chosen ->> 'tenantId' = event.tenant_id, true)
      and (o.chosen ->> 'correlationId' is null or o.chosen ->> 'correlationId' = event.correlation_id)
      and (o.chosen ->> 'subject' is null or o.chosen ->> 'subject' = event.subject)
      and coalesce(o.chosen -> 'ids' ? of_event::text, true)
      and (o.chosen -> 'types' is null or exists (
        select from jsonb_array_elements_text(o.chosen -> 'types') as t (type) where bus.pattern_matches(t.type, event.type)))
      and exists (
        select from (
          select unnest(s.patterns) union all
          select unnest(c.patterns) from bus.declarations c where c.subscription_id = s.id and c.retired_at is null) as p (pattern)
        where bus.pattern_matches(p.pattern, event.type))
  ) p on true
  where d.settled_at is not null or f.state is not null or j.is_active is not null or k.state is not null or p.is_planned
  order by r.id;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
  set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Events that wait for another attempt, by subscription, attempts made and error, of the 50,000 that are due first; at most 1,000 groups.
-- `retrying_events` are not due yet, as those of bus.read_depth; `due_events` may run.
create or replace function bus.read_retries(of_subscription text default null, max_count int default 1000)
returns table (
  subscription text, attempts int, error_name text, error_code text, retrying_events int, due_events int, due_in_1_minute int, due_in_5_minutes int,
  due_in_1_hour int, next_at timestamptz, is_partial boolean)
language plpgsql stable as $body$
#variable_conflict use_column
declare
  for_subscription int := (select s.id from bus.subscriptions s where s.name = of_subscription);
begin
  return query
  with retrying as materialized (
    select f.subscription_id, f.attempts, f.error_name, f.error_code, f.next_attempt_at from bus.failing f
    where f.state = 'retrying' and case when of_subscription is null then f.subscription_id > 0 else f.subscription_id = for_subscription end
    order by f.next_attempt_at limit 50000
  ), grouped as (
    select f.subscription_id, f.attempts::int as attempts, f.error_name, f.error_code,
      count(*) filter (where f.next_attempt_at <= now())::int as due_events,
      count(*) filter (where f.next_attempt_at <= now() is not true)::int as retrying_events,
      count(*) filter (where f.next_attempt_at <= now() + interval '1 minute')::int as due_in_1_minute,
      count(*) filter (where f.next_attempt_at <= now() + interval '5 minutes')::int as due_in_5_minutes,
      count(*) filter (where f.next_attempt_at <= now() + interval '1 hour')::int as due_in_1_hour,
      min(f.next_attempt_at) as next_at
    from retrying f group by 1, 2, 3, 4
  )
  select s.name, g.attempts, g.error_name, g.error_code, g.retrying_events, g.due_events, g.due_in_1_minute, g.due_in_5_minutes, g.due_in_1_hour,
    g.next_at, (select count(*) >= 50000 from retrying)
  from grouped g join bus.subscriptions s on s.id = g.subscription_id
  where of_subscription is null or s.name = of_subscription
  order by g.retrying_events + g.due_events desc, g.next_at limit least(max_count, 1000);
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Who uses the bus, and who waits: by tenant, at most 1,000, those with the most waiting events first. Of the newest 5,000 events of the
-- log, and of what waits: 5,000 events in the outbox, 5,000 of keys, about 5,000 in queues, 5,000 retries and 5,000 dead letters. A retry that
-- is due waits, as in bus.read_depth.
create or replace function bus.read_tenants(max_count int default 1000)
returns table (
  tenant_id text, recent_events int, recent_share float8, recent_since timestamptz, waiting_events int, waiting_share float8, scheduled_events int,
  retrying_events int, dead_events int, is_partial boolean)
language plpgsql stable as $body$
#variable_conflict use_column
declare
  queue_count int := (select count(*) from bus.subscriptions);
  -- Events of jobs of several tenants: the log knows whose they are.
  max_ids int := greatest(10, 5000 / greatest(1, queue_count));
  queues jsonb;
  recent jsonb;
  counts jsonb;
  of_shared jsonb;
begin
  select jsonb_agg(r.counted) into queues
  from bus.read_each(array(
    select format($queue$
      with jobs as materialized (
        -- Retries and keys are counted below.
        select j.singleton_key ~ '^[=@]' as is_own, substr(j.singleton_key, 2) as tenant_id, j.ids, jsonb_array_length(j.ids) as event_count
        from (
          select b.singleton_key, case jsonb_typeof(b.data -> 'eventIds') when 'array' then b.data -> 'eventIds' else '[]' end as ids,
            b.data ? 'failures' or b.data ? 'keyId' as is_other
          from (
            -- Decompressed once.
            select b.singleton_key, b.data || '{}' as data from (
              select b.singleton_key, b.data from pgboss.job b where b.name = %L and b.state < 'active' and not b.blocked
              order by b.priority desc, b.created_on limit 200
            ) b offset 0
          ) b offset 0
        ) j
        where not j.is_other
      )
      select
        (select jsonb_object_agg(o.tenant_id, o.event_count) from (
          select j.tenant_id, sum(j.event_count) as event_count from jobs j where j.is_own group by 1) o) as own,
        (select string_agg(i.id, ',') from (
          select jsonb_array_elements_text(j.ids) as id from jobs j where j.is_own is not true limit %s) i) as ids,
        (select count(*) >= 200 or coalesce(sum(j.event_count) filter (where j.is_own is not true), 0) > %2$s from jobs j) as is_partial
    $queue$, 'bus.' || s.name, max_ids)
    from bus.subscriptions s
  )) as r (counted);
  select jsonb_agg(r.counted) into recent
  from bus.read_each(array[format($recent$
    select e.tenant_id, count(*) as recent, min(e.ms) as first_ms
    from (
      select e.tenant_id, bus.uuid_ms(e.id) as ms from bus.events e where e.id >= %L and e.id < %L order by e.id desc limit 5000
    ) e group by 1
  $recent$, bus.uuid_v7_floor(now() - interval '31 days'), bus.uuid_v7_floor(now() + interval '1 day'))]) as r (counted);
  select jsonb_agg(r.counted) into counts
  from bus.read_each(array[$counts$
    select o.tenant_id, count(*) filter (where o.what = 'waiting') as waiting, count(*) filter (where o.what = 'scheduled') as scheduled,
      count(*) filter (where o.what = 'retrying') as retrying, count(*) filter (where o.what = 'dead') as dead,
      max(o.n) >= 5000 as is_partial
    from (
      select o.tenant_id, case when o.available_at > now() then 'scheduled' else 'waiting' end as what, row_number() over () as n
      from (select o.tenant_id, o.available_at from bus.outbox o order by o.position limit 5000) o
      union all
      select o.tenant_id, 'waiting', row_number() over () from (
        select k.tenant_id from (select k.* from bus.ordered_keys k order by k.id limit 5000) k
        cross join lateral (
          select from bus.ordered_events o
          where o.key_id = k.id and o.seq > k.done_seq and o.event_id is distinct from k.failed_event_id order by o.seq limit 5000) o
        limit 5000) o
      union all
      -- Those that are due may run, like first attempts. Of an ordered subscription they are counted with their keys.
      select f.tenant_id, case when f.next_attempt_at > now() then 'retrying' when s.options -> 'ordered' = 'true' then 'of a key' else 'waiting' end,
        row_number() over ()
      from (
        select f.* from bus.failing f where f.state = 'retrying' and f.subscription_id > 0 order by f.next_attempt_at limit 5000) f
      left join bus.subscriptions s on s.id = f.subscription_id
      union all
      select f.tenant_id, 'dead', row_number() over () from (
        select f.tenant_id from bus.failing f where f.state <> 'retrying' and f.subscription_id > 0 order by f.failed_at desc limit 5000) f
    ) o
    group by 1
  $counts$]) as r (counted);
  select jsonb_agg(r.counted) into of_shared
  from bus.read_each(array(
    select format('select e.tenant_id, count(*) as event_count from unnest(%L::uuid[]) as u (id) cross join lateral (
        select e.tenant_id from bus.events e where e.id = u.id and e.id >= %L and e.id <= %L limit 1) e group by 1',
      array_agg(u.id), min(u.id::text), max(u.id::text))
    from jsonb_array_elements(queues) as q (counts)
    cross join lateral (
      select i.id::uuid as id from string_to_table(q.counts ->> 'ids', ',') as i (id)
      where i.id ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$') u
    group by date_trunc('month', to_timestamp(bus.uuid_ms(u.id) / 1000.0) at time zone 'utc')
  )) as r (counted);
  return query
  with every as materialized (
    select c.tenant_id, 0 as recent, null::bigint as first_ms, c.waiting, c.scheduled, c.retrying, c.dead, c.is_partial
    from jsonb_to_recordset(counts) as c (tenant_id text, waiting int, scheduled int, retrying int, dead int, is_partial boolean)
    union all
    select c.tenant_id, c.recent, c.first_ms, 0, 0, 0, 0, false from jsonb_to_recordset(recent) as c (tenant_id text, recent int, first_ms bigint)
    union all
    select c.tenant_id, 0, null, c.event_count, 0, 0, 0, false from jsonb_to_recordset(of_shared) as c (tenant_id text, event_count int)
    union all
    select o.key, 0, null, o.value::int, 0, 0, 0, false
    from jsonb_array_elements(queues) as q (counts) cross join lateral jsonb_each_text(nullif(q.counts -> 'own', 'null')) o
  ), whole as (
    select coalesce((select bool_or((q.counts ->> 'is_partial')::boolean) from jsonb_array_elements(queues) as q (counts)), false)
        or coalesce(bool_or(e.is_partial), false) as is_partial,
      sum(e.recent)::float8 as recent, sum(e.waiting)::float8 as waiting, to_timestamp(min(e.first_ms) / 1000.0) as since
    from every e
  ), tenant as (
    select e.tenant_id, sum(e.recent)::int as recent, sum(e.waiting)::int as waiting, sum(e.scheduled)::int as scheduled,
      sum(e.retrying)::int as retrying, sum(e.dead)::int as dead
    from every e where e.tenant_id is not null group by 1
  )
  select t.tenant_id, t.recent, t.recent / greatest(1, w.recent), w.since, t.waiting, t.waiting / greatest(1, w.waiting), t.scheduled,
    t.retrying, t.dead, w.is_partial
  from tenant t cross join whole w
  order by t.waiting desc, t.recent desc, t.tenant_id limit least(max_count, 1000);
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
