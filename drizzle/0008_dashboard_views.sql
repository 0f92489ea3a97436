-- Views for dashboards: Grafana, Metabase, psql. docs/guide/dashboards.md describes them, src/operations/queries.ts reads them.
--
-- A view on a function `bus.read_…` is as cheap as its function: a condition on such a view is applied to the rows that the function
-- returns. The functions take the conditions that make them cheaper, and run with the rights of the caller, so that row security holds.
-- The other views are on tables, and take conditions by index; whoever may not read all tenants sees nothing there, or what is his.
--
-- Counts stop at a cap, and a column `is_partial` says so. Queues are read one after the other by bus.read_each, and so is what is in
-- partitions of months, so that no statement holds more than 64 locks, whatever the number of subscriptions and months.

-- Functions: durations in bins. Bin n, from 0, counts durations from 2^(n/2) milliseconds, and bin 0 everything shorter too.

-- The sums of two lists of bins.
create function bus.add_bins(sums bigint[], bins bigint[]) returns bigint[] language plpgsql immutable parallel safe as $body$
begin
  if cardinality(sums) = 0 then
    return coalesce(bins, '{}');
  end if;
  for n in 1 .. coalesce(cardinality(bins), 0) loop
    sums[n] := coalesce(sums[n], 0) + coalesce(bins[n], 0);
  end loop;
  return sums;
end
$body$;
--> statement-breakpoint

-- Merges bins of several minutes, processes or subscriptions: percentiles cannot be averaged, bins can be added.
create aggregate bus.merge_bins(bigint[]) (sfunc = bus.add_bins, stype = bigint[], initcond = '{}', parallel = safe);
--> statement-breakpoint

-- The duration in milliseconds that a share of the counted ones does not exceed, such as 0.95; null if there are none. Between the ends
-- of its bin, whose upper one is 1.41 times the lower one, it is interpolated.
create function bus.percentile(bins bigint[], fraction float8) returns float8 language plpgsql immutable strict parallel safe as $body$
declare
  total bigint := (select sum(b) from unnest(bins) b);
  seen bigint := 0;
  share float8;
begin
  if fraction is null or not fraction between 0 and 1 then
    raise exception 'Expected fraction to be between 0 and 1, got %', fraction using errcode = '22023';
  end if;
  if total is null or total = 0 then
    return null;
  end if;
  for n in 1 .. cardinality(bins) loop
    if bins[n] > 0 then
      share := (fraction * total - seen) / bins[n];
      if share <= 1 then
        return case when n = 1 then share * sqrt(2::float8) else 2 ^ ((n - 1 + greatest(share, 0)) / 2) end;
      end if;
      seen := seen + bins[n];
    end if;
  end loop;
  return 2 ^ (cardinality(bins)::float8 / 2);
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- The number of events in a job, whose data anybody may have inserted.
create function bus.job_event_count(data jsonb) returns int language sql immutable parallel safe
return case jsonb_typeof(data -> 'eventIds') when 'array' then jsonb_array_length(data -> 'eventIds') else 0 end;
--> statement-breakpoint

-- Views on tables.

-- What was published, delivered, failed (attempts), dead and expired in each minute. Give a range of `time`.
create view bus.v_throughput with (security_barrier = true) as
select r.minute as time, s.name as subscription, m.metric, m.value
from (
  select r.minute, r.subscription_id, sum(r.published) as published, sum(r.delivered) as delivered, sum(r.failed) as failed,
    sum(r.dead) as dead, sum(r.expired) as expired
  from bus.rollups r group by r.minute, r.subscription_id
) r
left join bus.subscriptions s on s.id = r.subscription_id
cross join lateral (values
  ('published', r.published), ('delivered', r.delivered), ('failed', r.failed), ('dead', r.dead), ('expired', r.expired)) as m (metric, value)
where (r.subscription_id = 0) = (m.metric = 'published') and (select bus.reads_all_tenants());
--> statement-breakpoint

-- How long events waited for their first handler, and how long handlers ran, in each minute. Give a range of `time`.
create view bus.v_latency with (security_barrier = true) as
select r.minute as time, s.name as subscription, m.metric, (select sum(b)::bigint from unnest(m.bins) b) as event_count,
  bus.percentile(m.bins, 0.5) as p50_ms, bus.percentile(m.bins, 0.95) as p95_ms, bus.percentile(m.bins, 0.99) as p99_ms, m.bins
from (
  select r.minute, r.subscription_id, bus.merge_bins(r.wait_bins) as wait_bins, bus.merge_bins(r.run_bins) as run_bins
  from bus.rollups r where r.subscription_id > 0
  group by r.minute, r.subscription_id
) r
left join bus.subscriptions s on s.id = r.subscription_id
cross join lateral (values ('wait', r.wait_bins), ('run', r.run_bins)) as m (metric, bins)
where cardinality(m.bins) > 0 and (select bus.reads_all_tenants());
--> statement-breakpoint

-- The events that a business id or an idempotency key stands for. Give `tenant_id` and `key`; bus.read_events_by_key takes the other
-- names of events too.
create view bus.v_events_by_key with (security_barrier = true) as
with reader as materialized (select bus.reads_all_tenants() as reads_all, bus.current_tenant() as tenant)
select k.tenant_id, k.key, k.kind, k.event_id, k.created_at
from bus.event_keys k
where (select r.reads_all from reader r) or k.tenant_id = (select r.tenant from reader r);
--> statement-breakpoint

-- The processes of the bus, at most 1,000. One is live if it was heard of within 60 seconds; a crashed one is forgotten after a while.
create view bus.v_instances as
select i.id as instance_id, i.service, i.host, i.pid, i.version, i.relay, i.in_flight_count as in_flight_events,
  cardinality(i.declarations) as subscription_count,
  array(select s.name from bus.declarations d join bus.subscriptions s on s.id = d.subscription_id
    where d.id = any (i.declarations) order by s.name limit 100) as subscriptions,
  i.started_at, i.seen_at, extract(epoch from clock_timestamp() - i.seen_at)::float8 as seen_seconds_ago,
  i.seen_at > clock_timestamp() - interval '60 seconds' as is_live
from bus.instances i
order by i.service, i.host, i.pid limit 1000;
--> statement-breakpoint

-- The subscriptions of all services: whether they are paused, their circuit breaker is open, or no process runs them. At most 10,000.
create view bus.v_subscription_state as
select s.name as subscription, s.service,
  case when s.paused_at is not null then 'paused' when s.circuit_opened_at is not null then 'circuit open'
    when l.instance_count is null then 'unserved' else 'active' end as state,
  coalesce(l.instance_count, 0) as instance_count, s.patterns, s.paused_at, s.paused_by, s.pause_reason,
  s.circuit_opened_at, s.circuit_reason, s.circuit_probe_at, s.uncovered_since, s.created_at as registered_at
from bus.subscriptions s
left join (
  select d.subscription_id as id, count(distinct i.id)::int as instance_count
  from bus.instances i cross join lateral unnest(i.declarations) as x (id) join bus.declarations d on d.id = x.id
  where i.seen_at > clock_timestamp() - interval '60 seconds'
  group by 1
) l using (id)
order by s.name limit 10000;
--> statement-breakpoint

-- Functions of views. All only read, and lock no rows.

-- What waits and runs for each subscription, in jobs and in events, counted for up to 10,000 jobs, events of keys and dead letters of
-- each: of the jobs that wait in a batch, the events of 2,000. The row without a subscription counts what is not dispatched yet. The columns of events are disjoint: see docs/guide/dashboards.md.
create function bus.read_depth(of_subscription text default null)
returns table (
  "time" timestamptz, subscription text, ready_jobs int, ready_events int, active_jobs int, active_events int, retrying_events int, deferred_events int,
  paused_events int, behind_events int, parked_events int, dead_events int, scheduled_events int, is_partial boolean)
language plpgsql stable as $body$
#variable_conflict use_column
declare
  ids int[] := array(select s.id from bus.subscriptions s where of_subscription is null or s.name = of_subscription);
  queues jsonb;
  -- Keys whose job is retried or deferred: their events wait.
  later_keys bigint[];
  rest jsonb;
begin
  select jsonb_agg(r.counted) into queues
  from bus.read_each(array(
    select format($counted$
      select %s as id, count(*) filter (where j.kind = 'ready') as ready_jobs, count(*) filter (where j.kind = 'active') as active_jobs,
        sum(j.event_count) filter (where j.kind = 'ready' and j.key_id is null) as ready,
        sum(case when j.key_id is null then j.event_count else 1 end) filter (where j.kind = 'active') as active,
        sum(case when j.key_id is null then j.event_count else 1 end) filter (where j.kind = 'retrying') as retrying,
        sum(case when j.key_id is null then j.event_count else 1 end) filter (where j.kind = 'deferred') as deferred,
        count(*) filter (where j.kind = 'active' and j.key_id is not null) as active_keys,
        string_agg(j.key_id::text, ',') filter (where j.kind in ('retrying', 'deferred') and j.key_id is not null) as later_keys,
        count(*) filter (where j.kind <> 'active') >= 10000 or count(*) filter (where not j.is_counted) > 0 as is_partial
      from (
        -- Of batches beyond the first 2,000, which take long to decompress, one event is counted.
        select case when b.data is null then 1 else bus.job_event_count(b.data) end as event_count, (b.data ->> 'keyId')::bigint as key_id, b.data is not null as is_counted,
          case when b.state = 'active' then 'active' when b.start_after <= now() then 'ready'
            when b.state = 'retry' or b.retry_count > 0 or coalesce(b.data ? 'failures', false) then 'retrying' else 'deferred' end as kind
        from (
          -- Decompressed once.
          select b.state, b.start_after, b.retry_count, case when b.n <= 2000 or pg_column_size(b.data) < 500 then b.data || '{}' end as data from (
            select w.*, row_number() over () as n from (
              select state, start_after, retry_count, data from pgboss.job where name = %L and state < 'active' and not blocked
              order by priority desc, created_on limit 10000) w
            union all
            (select state, start_after, retry_count, data, 0 from pgboss.job where name = %2$L and state = 'active' limit 10000)
          ) b offset 0
        ) b
      ) j
    $counted$, s.id, 'bus.' || s.name)
    from bus.subscriptions s where s.id = any (ids)
  )) as r (counted);
  later_keys := array(select k.id::bigint from jsonb_array_elements(queues) as q (counts)
    cross join lateral string_to_table(q.counts ->> 'later_keys', ',') as k (id));
  select jsonb_agg(r.counted) into rest
  from bus.read_each(array[
    format($keys$
      select s.id, 'keys' as what, jsonb_build_object('is_partial', count(*) >= 10000,
        'ready', count(*) filter (where e.kind = 'ready'),
        'behind', count(*) filter (where e.kind = 'later') - count(distinct e.key_id) filter (where e.kind = 'later')
          + count(*) filter (where e.kind = 'blocked' and not e.is_failed),
        'parked', count(*) filter (where e.kind = 'parked' and not e.is_failed)) as counts
      from unnest(%L::int[]) as s (id)
      cross join lateral (
        select k.id as key_id, o.event_id is not distinct from k.failed_event_id as is_failed,
          case when k.state = 'parked' then 'parked' when k.state <> 'active' then 'blocked'
            when k.id = any (%L::bigint[]) then 'later' else 'ready' end as kind
        from (select k.* from bus.ordered_keys k where k.subscription_id = s.id order by k.key_hash limit 10000) k
        cross join lateral (
          select o.event_id from bus.ordered_events o where o.key_id = k.id and o.seq > k.done_seq order by o.seq limit 10000) o
        limit 10000
      ) e
      group by s.id
    $keys$, ids, later_keys),
    format($dead$
      select s.id, 'dead' as what, jsonb_build_object('dead', f.dead, 'is_partial', f.dead >= 10000) as counts
      from unnest(%L::int[]) as s (id)
      cross join lateral (
        select count(*) as dead from (
          select from bus.failing f where f.subscription_id = s.id and f.state <> 'retrying' limit 10000) f
      ) f
      where f.dead > 0
    $dead$, ids),
    $outbox$
      select o.subscription_id as id, 'outbox' as what, jsonb_build_object('is_partial', bool_or(o.is_partial),
        'ready', coalesce(sum(o.event_count) filter (where not o.is_later), 0),
        'scheduled', coalesce(sum(o.event_count) filter (where o.is_later), 0)) as counts
      from (
        select null::int as subscription_id, false as is_later, count(*) as event_count, count(*) >= 10000 as is_partial
        from (select from bus.outbox o where o.position >= 0 and o.position < 4611686018427387904 limit 10000) o
        union all
        select null, false, count(*), count(*) >= 10000 from (
          select from bus.outbox o where o.available_at <= now() and o.ordering_key is null and o.subscription_id is null limit 10000) o
        union all
        select null, false, count(*), count(*) >= 10000 from (
          select from bus.outbox o where o.available_at <= now() and o.ordering_key is not null and o.subscription_id is null limit 10000) o
        union all
        select null, true, count(*), count(*) >= 10000 from (
          select from bus.outbox o where o.available_at > now() and o.ordering_key is null limit 10000) o
        union all
        select null, true, count(*), count(*) >= 10000 from (
          select from bus.outbox o where o.available_at > now() and o.ordering_key is not null limit 10000) o
        union all
        -- Those that one subscription could not take yet.
        select o.subscription_id, false, count(*), count(*) >= 10000
        from (select o.subscription_id from bus.outbox o where o.subscription_id is not null limit 10000) o
        group by 1
      ) o
      group by 1
    $outbox$]) as r (counted);
  return query
  with found as (
    select q.* from jsonb_to_recordset(queues) as q (
      id int, ready_jobs int, active_jobs int, ready int, active int, retrying int, deferred int, active_keys int, is_partial boolean)
  ), other as (
    select r.id, r.what, c.* from jsonb_to_recordset(rest) as r (id int, what text, counts jsonb)
    cross join lateral jsonb_to_record(r.counts) as c (ready int, behind int, parked int, dead int, scheduled int, is_partial boolean)
  ), counted as (
    select s.name, s.paused_at is not null as is_paused, q.ready_jobs, q.active_jobs, coalesce(q.active, 0) as active,
      coalesce(q.retrying, 0) as retrying, coalesce(q.deferred, 0) as deferred,
      coalesce(q.ready, 0) + greatest(0, coalesce(k.ready, 0) - q.active_keys) + coalesce(o.ready, 0) as ready,
      coalesce(k.behind, 0) as behind, coalesce(k.parked, 0) as parked, coalesce(d.dead, 0) as dead,
      q.is_partial or coalesce(k.is_partial, false) or coalesce(d.is_partial, false) or coalesce(o.is_partial, false) as is_partial
    from found q
    join bus.subscriptions s on s.id = q.id
    left join other k on k.id = q.id and k.what = 'keys'
    left join other d on d.id = q.id and d.what = 'dead'
    left join other o on o.id = q.id and o.what = 'outbox'
  )
  (select now(), c.name, case when c.is_paused then 0 else c.ready_jobs end, case when c.is_paused then 0 else c.ready end,
    c.active_jobs, c.active, c.retrying, c.deferred, case when c.is_paused then c.ready else 0 end, c.behind, c.parked, c.dead, 0, c.is_partial
  from counted c order by c.name collate "C")
  union all
  select now(), null, 0, o.ready, 0, 0, 0, 0, 0, 0, 0, 0, o.scheduled, o.is_partial
  from other o where o.what = 'outbox' and o.id is null and of_subscription is null;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint
create view bus.v_depth as select * from bus.read_depth();
--> statement-breakpoint

-- How far behind each subscription is: how long ago the earliest event that may run now was due, 0 if there is none. What waits for a
-- paused subscription may not run now. An event that is not dispatched yet counts for the subscriptions that its type belongs to; the
-- row without a subscription is the lag of the relay. Of a queue, the hundred jobs that have been due longest are compared.
create function bus.read_lag(of_subscription text default null)
returns table ("time" timestamptz, subscription text, lag_seconds float8, paused_seconds float8, due_at timestamptz) language plpgsql stable as $body$
#variable_conflict use_column
declare
  queues jsonb;
  outbox jsonb;
begin
  select jsonb_agg(r.due) into queues
  from bus.read_each(array(
    select format($due$
      select %s as id, min(case
        -- The id of a job of first attempts says when its events were published, or due.
        when b.state = 'created' and b.retry_count = 0 and not b.data ? 'failures' and substr(b.id::text, 15, 1) = '8' and substr(b.id::text, 20, 1) = 'b'
          then least(b.start_after, to_timestamp(bus.uuid_ms(b.id) / 1000.0))
        else b.start_after end) as due_at
      from (
        (select id, state, retry_count, start_after, data from pgboss.job
        where name = %L and state = 'created' and not blocked and start_after <= now() order by start_after limit 100)
        union all
        (select id, state, retry_count, start_after, data from pgboss.job
        where name = %2$L and state = 'retry' and not blocked and start_after <= now() order by start_after limit 100)
      ) b
    $due$, s.id, 'bus.' || s.name)
    from bus.subscriptions s where of_subscription is null or s.name = of_subscription
  )) as r (due);
  select jsonb_agg(r.due) into outbox
  from bus.read_each(array[$outbox$
    select o.type, o.subscription_id, min(o.due_at) as due_at
    from (
      (select o.type, null::int as subscription_id, to_timestamp(bus.uuid_ms(o.event_id) / 1000.0) as due_at from bus.outbox o
      where o.position >= 0 and o.position < 2305843009213693952 order by o.position limit 1000)
      union all
      (select o.type, null, to_timestamp(bus.uuid_ms(o.event_id) / 1000.0) from bus.outbox o
      where o.position >= 2305843009213693952 and o.position < 4611686018427387904 order by o.position limit 1000)
      union all
      (select o.type, null, o.available_at from bus.outbox o
      where o.available_at <= now() and o.ordering_key is null and o.subscription_id is null order by o.available_at limit 1000)
      union all
      (select o.type, null, o.available_at from bus.outbox o
      where o.available_at <= now() and o.ordering_key is not null and o.subscription_id is null order by o.available_at limit 1000)
      union all
      (select o.type, o.subscription_id, coalesce(o.available_at, to_timestamp(bus.uuid_ms(o.event_id) / 1000.0)) from bus.outbox o
      where o.subscription_id is not null limit 1000)
    ) o
    where isfinite(o.due_at)
    group by 1, 2
  $outbox$]) as r (due);
  return query
  with held as (
    select o.* from jsonb_to_recordset(outbox) as o (type text, subscription_id int, due_at timestamptz)
  ), due as (
    select s.name, s.paused_at is not null as is_paused, least(q.due_at, h.due_at, m.due_at) as due_at
    from jsonb_to_recordset(queues) as q (id int, due_at timestamptz)
    join bus.subscriptions s on s.id = q.id
    left join lateral (select min(h.due_at) as due_at from held h where h.subscription_id = s.id) h on true
    left join lateral (
      select min(h.due_at) as due_at from held h
      where h.subscription_id is null and exists (
        select from (
          select unnest(s.patterns) union all
          select unnest(d.patterns) from bus.declarations d where d.subscription_id = s.id and d.retired_at is null) as p (pattern)
        where bus.pattern_matches(p.pattern, h.type))
    ) m on true
  ), age as (
    select d.name, d.is_paused, d.due_at, coalesce(greatest(0, extract(epoch from clock_timestamp() - d.due_at)), 0)::float8 as seconds
    from due d
  )
  (select now(), a.name, case when a.is_paused then 0 else a.seconds end, case when a.is_paused then a.seconds else 0 end, a.due_at
  from age a order by a.name collate "C")
  union all
  select now(), null, coalesce(greatest(0, extract(epoch from clock_timestamp() - min(h.due_at))), 0)::float8, 0, min(h.due_at)
  from held h having of_subscription is null;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint
create view bus.v_lag as select * from bus.read_lag();
--> statement-breakpoint

-- Dead letters by error, of the newest 100,000: most frequent first, at most 1,000 groups. `event_id` is the newest of a group, and the
-- message is that of its last attempt.
create function bus.read_dead_by_error(of_subscription text default null, max_count int default 1000)
returns table (
  subscription text, fingerprint text, error_name text, error_code text, error_message text, dead_events int, tenant_count int,
  first_at timestamptz, last_at timestamptz, event_id uuid, is_partial boolean)
language plpgsql stable as $body$
#variable_conflict use_column
declare
  for_subscription int := (select s.id from bus.subscriptions s where s.name = of_subscription);
  of_one text := case when of_subscription is null then ' and f.subscription_id > 0' else format(' and f.subscription_id = %L', coalesce(for_subscription, 0)) end;
  groups jsonb;
begin
  -- Each case is a statement of its own, so that each has its index.
  execute format($groups$
    with dead as materialized (
      select f.subscription_id, f.fingerprint, f.tenant_id, f.failed_at from bus.failing f
      where f.state <> 'retrying' %s order by f.failed_at desc limit 100000
    ), by_tenant as (
      select d.subscription_id, d.fingerprint, d.tenant_id, count(*) as dead_events, min(d.failed_at) as first_at, max(d.failed_at) as last_at
      from dead d group by 1, 2, 3
    ), by_error as (
      select t.subscription_id, t.fingerprint, sum(t.dead_events) as dead_events, count(t.tenant_id) as tenant_count, min(t.first_at) as first_at,
        max(t.last_at) as last_at
      from by_tenant t group by 1, 2 order by 3 desc, 6 desc limit $1
    )
    select jsonb_agg(to_jsonb(g) || to_jsonb(n) || jsonb_build_object('is_partial', (select count(*) >= 100000 from dead)))
    from by_error g
    cross join lateral (
      select f.event_id, f.error_name, f.error_code from bus.failing f
      where f.subscription_id = g.subscription_id and f.state <> 'retrying' and f.failed_at = g.last_at
        and f.fingerprint is not distinct from g.fingerprint
      limit 1
    ) n
  $groups$, of_one) into groups using least(max_count, 1000);
  return query
  with newest as materialized (
    select g.* from jsonb_to_recordset(groups) as g (
      subscription_id int, fingerprint text, error_name text, error_code text, dead_events int, tenant_count int, first_at timestamptz,
      last_at timestamptz, event_id uuid, is_partial boolean)
  ), message as (
    select (r.found ->> 'subscription_id')::int as subscription_id, (r.found ->> 'event_id')::uuid as event_id, r.found ->> 'message' as message
    -- Month by month, and only the partitions of these events.
    from bus.read_each(array(
      select format($message$
        select distinct on (a.event_id, a.subscription_id) a.event_id, a.subscription_id, left(a.error_message, 300) as message
        from bus.attempts a where a.event_id = any (%L::uuid[]) and not a.succeeded
        order by a.event_id, a.subscription_id, a.ended_at desc
      $message$, array_agg(distinct n.event_id))
      from newest n group by date_trunc('month', to_timestamp(bus.uuid_ms(n.event_id) / 1000.0) at time zone 'utc')
    )) as r (found)
  )
  select s.name, n.fingerprint, n.error_name, n.error_code, m.message, n.dead_events, n.tenant_count, n.first_at, n.last_at, n.event_id, n.is_partial
  from newest n
  join bus.subscriptions s on s.id = n.subscription_id
  left join message m on m.subscription_id = n.subscription_id and m.event_id = n.event_id
  order by n.dead_events desc, n.last_at desc;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint
create view bus.v_dead_by_error as select * from bus.read_dead_by_error();
--> statement-breakpoint

-- The latest failed attempts, newest first, at most 1,000, of events that were published within the last three months. `state` is what
-- the event is now: retrying, dead, blocked or parked, null when it is done.
create function bus.read_recent_failures(of_subscription text default null, max_count int default 1000)
returns table (
  "time" timestamptz, subscription text, tenant_id text, event_id uuid, attempt int, error_name text, error_code text, error_message text,
  fingerprint text, duration_ms real, instance_id uuid, state text)
language plpgsql stable as $body$
#variable_conflict use_column
declare
  ids int[] := array(select s.id from bus.subscriptions s where of_subscription is null or s.name = of_subscription);
  latest jsonb;
  tenants jsonb;
begin
  select jsonb_agg(r.failure) into latest
  from bus.read_each(array[format($latest$
    select l.* from unnest(%L::int[]) as s (id)
    cross join lateral (
      select a.ended_at, a.subscription_id, a.event_id, a.attempt, a.error_name, a.error_code, left(a.error_message, 300) as error_message,
        a.fingerprint, a.duration_ms, a.instance_id
      from bus.attempts a
      where a.subscription_id = s.id and not a.succeeded and a.event_id >= %L and a.event_id < %L
      order by a.ended_at desc limit %s
    ) l
    order by l.ended_at desc limit %s
  $latest$, ids, bus.uuid_v7_floor(now() - interval '92 days'), bus.uuid_v7_floor(now() + interval '1 day'),
    -- Of many subscriptions, fewer of each.
    greatest(20, least(max_count, 1000, 20000 / greatest(1, cardinality(ids)))), least(max_count, 1000))]) as r (failure);
  select jsonb_object_agg(r.event ->> 'id', r.event -> 'tenant_id') into tenants
  from bus.read_each(array(
    -- With the bounds, only the partitions in between are planned.
    select format('select u.id, e.tenant_id from unnest(%L::uuid[]) as u (id) cross join lateral (
        select e.tenant_id from bus.events e where e.id = u.id and e.id >= %L and e.id <= %L limit 1) e',
      array_agg(l.event_id), min(l.event_id::text), max(l.event_id::text))
    from (select distinct l.event_id from jsonb_to_recordset(latest) as l (event_id uuid)) l
    group by date_trunc('month', to_timestamp(bus.uuid_ms(l.event_id) / 1000.0) at time zone 'utc')
  )) as r (event);
  return query
  select l.ended_at, s.name, tenants ->> l.event_id::text, l.event_id, l.attempt, l.error_name, l.error_code, l.error_message, l.fingerprint,
    l.duration_ms, l.instance_id, f.state
  from jsonb_to_recordset(latest) as l (
    ended_at timestamptz, subscription_id int, event_id uuid, attempt int, error_name text, error_code text, error_message text, fingerprint text,
    duration_ms real, instance_id uuid)
  join bus.subscriptions s on s.id = l.subscription_id
  left join bus.failing f on f.subscription_id = l.subscription_id and f.event_id = l.event_id
  order by l.ended_at desc, l.event_id;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint
create view bus.v_recent_failures as select * from bus.read_recent_failures();
--> statement-breakpoint

-- Events that wait for another attempt, by subscription, attempts made and error, of the 50,000 that are due first; at most 1,000 groups.
create function bus.read_retries(of_subscription text default null, max_count int default 1000)
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
    select f.subscription_id, f.attempts::int as attempts, f.error_name, f.error_code, count(*)::int as retrying_events,
      count(*) filter (where f.next_attempt_at <= now())::int as due_events,
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
  order by g.retrying_events desc, g.next_at limit least(max_count, 1000);
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint
create view bus.v_retries as select * from bus.read_retries();
--> statement-breakpoint

-- The jobs that run, longest first, at most 1,000. `is_lost`: its worker has not been heard of in time, and the job is given to another
-- one. `event_id` is its first event.
create function bus.read_active(of_subscription text default null, max_count int default 1000)
returns table (
  subscription text, job_id uuid, event_id uuid, event_count int, attempt int, started_at timestamptz, running_seconds float8,
  heartbeat_at timestamptz, heartbeat_seconds_ago float8, is_lost boolean)
language plpgsql stable as $body$
#variable_conflict use_column
begin
  return query
  select s.name, j.id, j.event_id, j.event_count, j.attempt, j.started_on, greatest(0, extract(epoch from clock_timestamp() - j.started_on))::float8,
    j.heartbeat_on, greatest(0, extract(epoch from clock_timestamp() - j.heartbeat_on))::float8,
    coalesce(j.heartbeat_on + j.heartbeat_seconds * interval '1 second' < clock_timestamp(), false)
  from bus.read_each(array(
    select format($active$
      select %s as subscription_id, b.id, b.started_on, b.heartbeat_on, b.heartbeat_seconds, bus.job_event_count(b.data) as event_count,
        case when bus.job_event_count(b.data) > 0 then b.data -> 'eventIds' ->> 0 end as event_id,
        case jsonb_typeof(b.data -> 'attempts') when 'number' then (b.data ->> 'attempts')::int else 0 end + b.retry_count + 1 as attempt
      from pgboss.job b where b.name = %L and b.state = 'active' limit 1000
    $active$, s.id, 'bus.' || s.name)
    from bus.subscriptions s where of_subscription is null or s.name = of_subscription
  )) as r (job)
  cross join lateral jsonb_to_record(r.job) as j (
    subscription_id int, id uuid, started_on timestamptz, heartbeat_on timestamptz, heartbeat_seconds int, event_count int, event_id uuid, attempt int)
  join bus.subscriptions s on s.id = j.subscription_id
  order by j.started_on, j.id limit least(max_count, 1000);
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint
create view bus.v_active as select * from bus.read_active();
--> statement-breakpoint

-- The keys of ordered subscriptions that wait for a person, or for a handler that ignores its signal: longest first, at most 1,000. The
-- events behind the failed one are counted up to 10,000.
create function bus.read_blocked_keys(of_subscription text default null, max_count int default 1000)
returns table (
  subscription text, tenant_id text, ordering_key text, state text, since timestamptz, blocked_seconds float8, event_id uuid, attempts int,
  error_name text, error_message text, behind_events int, is_partial boolean)
language plpgsql stable as $body$
#variable_conflict use_column
begin
  return query
  with failed as materialized (
    select k.* from bus.ordered_keys k
    where k.failed_at is not null
      and (of_subscription is null or k.subscription_id = (select s.id from bus.subscriptions s where s.name = of_subscription))
    order by k.failed_at, k.id limit least(max_count, 1000)
  )
  select s.name, k.tenant_id, k.ordering_key, k.state, k.failed_at, greatest(0, extract(epoch from clock_timestamp() - k.failed_at))::float8,
    k.failed_event_id, k.attempts::int, k.failures -> -1 ->> 'name', left(k.failures -> -1 ->> 'message', 300),
    greatest(0, e.event_count - 1), e.event_count > 10000
  from failed k
  join bus.subscriptions s on s.id = k.subscription_id
  cross join lateral (
    select count(*)::int as event_count from (
      select from bus.ordered_events e where e.key_id = k.id and e.seq > k.done_seq limit 10001) e
  ) e
  order by k.failed_at, k.id;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint
create view bus.v_blocked_keys as select * from bus.read_blocked_keys();
--> statement-breakpoint

-- The scheduled events that are due next, at most 1,000.
create function bus.read_scheduled(max_count int default 1000)
returns table (due_at timestamptz, due_in_seconds float8, event_id uuid, tenant_id text, type text, ordering_key text)
language plpgsql stable as $body$
#variable_conflict use_column
begin
  return query
  select o.available_at, extract(epoch from o.available_at - clock_timestamp())::float8, o.event_id, o.tenant_id, o.type, o.ordering_key
  from (
    (select o.* from bus.outbox o where o.available_at > now() and o.ordering_key is null order by o.available_at limit least(max_count, 1000))
    union all
    (select o.* from bus.outbox o where o.available_at > now() and o.ordering_key is not null
    order by o.available_at, o.position limit least(max_count, 1000))
  ) o
  where isfinite(o.available_at)
  order by o.available_at, o.position limit least(max_count, 1000);
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint
create view bus.v_scheduled as select * from bus.read_scheduled();
--> statement-breakpoint

-- The events that a name stands for, newest first, at most 1,000: a business id or an idempotency key; with a tenant also a correlation id
-- or a subject. Without a tenant, the keys of up to 10,000 tenants are looked up.
create function bus.read_events_by_key(of_key text, of_tenant text default null, max_count int default 1000)
returns table (tenant_id text, key text, kind text, event_id uuid, created_at timestamptz) language plpgsql stable as $body$
#variable_conflict use_column
declare
  bounds uuid[];
begin
  if of_tenant is not null then
    bounds := bus.partition_bounds('00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff');
  end if;
  return query
  with recursive tenants as (
    select (select min(k.tenant_id) from bus.event_keys k) as tenant_id, 1 as n where of_tenant is null
    union all
    select (select min(k.tenant_id) from bus.event_keys k where k.tenant_id > t.tenant_id), t.n + 1
    from tenants t where t.tenant_id is not null and t.n < 10000
  ), chosen as (
    select t.tenant_id from tenants t where t.tenant_id is not null
    union all
    select of_tenant where of_tenant is not null
  )
  select f.tenant_id, of_key, f.kind, f.event_id, f.created_at
  from (
    select k.tenant_id, k.kind, k.event_id, k.created_at
    from chosen c
    cross join (values ('event_id'), ('idempotency_key')) as v (kind)
    cross join lateral (
      select k.* from bus.event_keys k where k.tenant_id = c.tenant_id and k.kind = v.kind and k.key = of_key limit 1) k
    union all
    select of_tenant, r.found ->> 'kind', (r.found ->> 'id')::uuid, (r.found ->> 'created_at')::timestamptz
    from bus.read_each(array(
      select format($found$
        (select 'correlation_id' as kind, e.id, e.created_at from bus.events e
        where e.tenant_id = %1$L and e.correlation_id = %2$L and e.id >= %3$L and e.id < %4$L order by e.id desc limit %5$s)
        union all
        (select 'subject', e.id, e.created_at from bus.events e
        where hashtextextended(e.subject, hashtextextended(e.tenant_id, 0)) = hashtextextended(%2$L, hashtextextended(%1$L, 0))
          and e.tenant_id = %1$L and e.subject = %2$L and e.id >= %3$L and e.id < %4$L order by e.id desc limit %5$s)
      $found$, of_tenant, of_key, bounds[n], bounds[n + 1], least(max_count, 1000))
      from generate_series(1, cardinality(bounds) - 1) as n
      order by n desc
    )) as r (found)
  ) f
  order by f.event_id desc, f.kind limit least(max_count, 1000);
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint
-- Who uses the bus, and who waits: by tenant, at most 1,000, those with the most waiting events first. Of the newest 5,000 events of the
-- log, and of what waits: 5,000 events in the outbox, 5,000 of keys, about 5,000 in queues, 5,000 retries and 5,000 dead letters.
create function bus.read_tenants(max_count int default 1000)
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
      select f.tenant_id, 'retrying', row_number() over () from (
        select f.tenant_id from bus.failing f where f.state = 'retrying' and f.subscription_id > 0 order by f.next_attempt_at limit 5000) f
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
--> statement-breakpoint
create view bus.v_tenants as select * from bus.read_tenants();
--> statement-breakpoint

-- The tables of the bus and of pg-boss, those of queues the hundred largest: sizes, estimated rows, dead rows, and when they were
-- vacuumed. `default_rows` is the exact number of rows in a default partition, up to 10,000: it should be 0. Runs as the owner of the
-- log, whose partitions nobody else reads, and shows nothing of what is in them.
create function bus.read_storage()
returns table (
  name text, parent text, queue text, range_from timestamptz, range_to timestamptz, estimated_rows bigint, total_bytes bigint, index_bytes bigint,
  dead_rows bigint, last_vacuum_at timestamptz, last_analyze_at timestamptz, frozen_xid_age int, default_rows int)
language plpgsql stable security definer as $body$
#variable_conflict use_column
declare
  boss oid := quote_ident(bus.boss_schema())::regnamespace::oid;
begin
  return query
  with tables as (
    (select c.* from pg_class c where c.relnamespace = 'bus'::regnamespace and c.relkind = 'r' limit 2000)
    union all
    (select c.* from pg_class c where c.relnamespace = boss and c.relkind = 'r' order by c.relpages desc, c.relname limit 100)
  ), bounds as (
    select c.oid, array(
      select to_timestamp(bus.uuid_ms(m[1]::uuid) / 1000.0)
      from regexp_matches(pg_get_expr(c.relpartbound, c.oid), '([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})', 'g') as m) as range
    from tables c where c.relispartition and c.relnamespace = 'bus'::regnamespace
  )
  select n.nspname || '.' || c.relname, (select p.relname::text from pg_inherits i join pg_class p on p.oid = i.inhparent where i.inhrelid = c.oid),
    case when c.relispartition and c.relnamespace = boss and c.relname <> 'job_common' then (
      select q.name from pgboss.queue q where q.table_name = c.relname order by q.name limit 1) end,
    b.range[1], b.range[2],
    case when c.reltuples < 0 then null else c.reltuples::bigint end, pg_total_relation_size(c.oid), pg_indexes_size(c.oid),
    pg_stat_get_dead_tuples(c.oid), greatest(pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid)),
    greatest(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid)), age(c.relfrozenxid),
    case c.oid
      when 'bus.events_default'::regclass then (select count(*)::int from (select from bus.events_default limit 10000) d)
      when 'bus.receipts_default'::regclass then (select count(*)::int from (select from bus.receipts_default limit 10000) d)
      when 'bus.receipt_batches_default'::regclass then (select count(*)::int from (select from bus.receipt_batches_default limit 10000) d)
      when 'bus.attempts_default'::regclass then (select count(*)::int from (select from bus.attempts_default limit 10000) d) end
  from tables c
  join pg_namespace n on n.oid = c.relnamespace
  left join bounds b on b.oid = c.oid
  order by n.nspname, c.relname;
end
$body$ set search_path = pg_catalog, pg_temp set jit = off;
--> statement-breakpoint
create view bus.v_storage as select * from bus.read_storage();
--> statement-breakpoint

-- Privileges. drizzle/roles.sql grants them to bus_operator.

revoke execute on function
  bus.add_bins(bigint[], bigint[]), bus.merge_bins(bigint[]), bus.percentile(bigint[], float8), bus.job_event_count(jsonb), bus.read_depth(text),
  bus.read_lag(text), bus.read_dead_by_error(text, int), bus.read_recent_failures(text, int), bus.read_retries(text, int), bus.read_active(text, int),
  bus.read_blocked_keys(text, int), bus.read_scheduled(int), bus.read_events_by_key(text, text, int), bus.read_tenants(int), bus.read_storage()
from public;
--> statement-breakpoint
-- They read and write nothing.
grant execute on function bus.add_bins(bigint[], bigint[]), bus.merge_bins(bigint[]), bus.percentile(bigint[], float8), bus.job_event_count(jsonb)
to public;
