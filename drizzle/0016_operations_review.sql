-- What a review of the operations found: work that may wait is no lag, and a function that nothing calls is gone.
--
-- * bus.subscriptions.catch_up_ended_at: when an ordered subscription had caught up with the log. What was held back for it until then is due
--   from there on.
-- * bus.is_background_job and bus.read_held_events: what does not count, said in one place.
--
-- It replaces what an earlier file defines: bus.read_depth and bus.read_lag (0008). It drops bus.dead_letter_page (0005).

alter table bus.subscriptions add column catch_up_ended_at timestamp (6) with time zone;
--> statement-breakpoint

-- bus.dead_letters reads bus.dead_letter_rows since 0009.
drop function bus.dead_letter_page(int, text, timestamptz, uuid, int);
--> statement-breakpoint

-- Whether a job waits in the background, for a replay or a catch-up: behind all others, by its priority. Jobs that are left to other code stand
-- there too, in a group; and an event of a replay that failed is tried again among other retries.
create function bus.is_background_job(priority int, group_id text, data jsonb) returns boolean language sql immutable parallel safe
return (priority <= -2000000000 and group_id is null) or coalesce(data ? 'replay', false);
--> statement-breakpoint

-- The events that are held back in the outbox for one subscription, at most so many of each. Not `is_ready`: an ordered subscription catches up
-- with the log first. `of_catch_up`: that, or it has caught up and has not got all of what was held back meanwhile; such events are due no
-- earlier than the end of its catch-up. Reads one index, and locks no rows.
create function bus.read_held_events(max_count int, ready_only boolean)
returns table (subscription_id int, type text, due_at timestamptz, is_ready boolean, of_catch_up boolean) language plpgsql stable as $body$
#variable_conflict use_column
begin
  return query
  select s.id, o.type, greatest(o.due_at, s.catch_up_ended_at), not s.is_catching_up,
    s.is_catching_up or coalesce(min(o.due_at) over (partition by s.id) < s.catch_up_ended_at, false)
  from (
    select s.id, s.catch_up_ended_at, s.catch_up_until is not null and s.options -> 'ordered' is not null as is_catching_up
    from bus.subscriptions s
  ) s
  cross join lateral (
    select o.type, coalesce(o.available_at, to_timestamp(bus.uuid_ms(o.event_id) / 1000.0)) as due_at
    from bus.outbox o where o.subscription_id = s.id limit max_count
  ) o
  where not (ready_only and s.is_catching_up);
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- What waits and runs for each subscription, in jobs and in events, counted for up to 10,000 jobs, events of keys and dead letters of
-- each: of the jobs that wait in a batch, the events of 2,000. The row without a subscription counts what is not dispatched yet. The columns of events are disjoint: see docs/guide/dashboards.md.
create or replace function bus.read_depth(of_subscription text default null)
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
        'ready', coalesce(sum(o.event_count) filter (where o.what = 'ready'), 0),
        'deferred', coalesce(sum(o.event_count) filter (where o.what = 'deferred'), 0),
        'scheduled', coalesce(sum(o.event_count) filter (where o.what = 'scheduled'), 0)) as counts
      from (
        select null::int as subscription_id, 'ready' as what, count(*) as event_count, count(*) >= 10000 as is_partial
        from (select from bus.outbox o where o.position >= 0 and o.position < 4611686018427387904 limit 10000) o
        union all
        select null, 'ready', count(*), count(*) >= 10000 from (
          select from bus.outbox o where o.available_at <= now() and o.ordering_key is null and o.subscription_id is null limit 10000) o
        union all
        select null, 'ready', count(*), count(*) >= 10000 from (
          select from bus.outbox o where o.available_at <= now() and o.ordering_key is not null and o.subscription_id is null limit 10000) o
        union all
        select null, 'scheduled', count(*), count(*) >= 10000 from (
          select from bus.outbox o where o.available_at > now() and o.ordering_key is null limit 10000) o
        union all
        select null, 'scheduled', count(*), count(*) >= 10000 from (
          select from bus.outbox o where o.available_at > now() and o.ordering_key is not null limit 10000) o
        union all
        -- Those that one subscription could not take yet, or that wait until it has caught up with the log.
        select h.subscription_id, case when h.is_ready then 'ready' else 'deferred' end, count(*), count(*) >= 10000
        from bus.read_held_events(10000, false) h
        group by 1, 2
      ) o
      group by 1
    $outbox$]) as r (counted);
  return query
  with found as (
    select q.* from jsonb_to_recordset(queues) as q (
      id int, ready_jobs int, active_jobs int, ready int, active int, retrying int, deferred int, active_keys int, is_partial boolean)
  ), other as (
    select r.id, r.what, c.* from jsonb_to_recordset(rest) as r (id int, what text, counts jsonb)
    cross join lateral jsonb_to_record(r.counts) as c (ready int, deferred int, behind int, parked int, dead int, scheduled int, is_partial boolean)
  ), counted as (
    select s.name, s.paused_at is not null as is_paused, q.ready_jobs, q.active_jobs, coalesce(q.active, 0) as active,
      coalesce(q.retrying, 0) as retrying, coalesce(q.deferred, 0) + coalesce(o.deferred, 0) as deferred,
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

-- How far behind each subscription is: how long ago the earliest event that may run now was due, 0 if there is none. What waits for a
-- paused subscription may not run now. An event that is not dispatched yet counts for the subscriptions that its type belongs to; the
-- row without a subscription is the lag of the relay. Of a queue, the hundred jobs that have been due longest are compared. What waits in the
-- background, for a replay or a catch-up, does not count; nor do events before their ordered subscription has caught up with the log.
create or replace function bus.read_lag(of_subscription text default null)
returns table ("time" timestamptz, subscription text, lag_seconds float8, paused_seconds float8, due_at timestamptz) language plpgsql stable as $body$
#variable_conflict use_column
declare
  queues jsonb;
  outbox jsonb;
begin
  select jsonb_agg(r.due) into queues
  from bus.read_each(array(
    select format($due$
      select %s as id, min(greatest(case
        -- The id of a job of first attempts says when its events were published, or due.
        when b.state = 'created' and b.retry_count = 0 and not b.data ? 'failures' and substr(b.id::text, 15, 1) = '8' and substr(b.id::text, 20, 1) = 'b'
          then least(b.start_after, to_timestamp(bus.uuid_ms(b.id) / 1000.0))
        else b.start_after end, %L)) as due_at
      from (
        (select id, state, retry_count, start_after, data from pgboss.job
        where name = %L and state = 'created' and not blocked and start_after <= now() and not bus.is_background_job(priority, group_id, data)
        order by start_after limit 100)
        union all
        (select id, state, retry_count, start_after, data from pgboss.job
        where name = %3$L and state = 'retry' and not blocked and start_after <= now() and not bus.is_background_job(priority, group_id, data)
        order by start_after limit 100)
      ) b
    $due$, s.id, s.catch_up_ended_at, 'bus.' || s.name)
    from bus.subscriptions s where of_subscription is null or s.name = of_subscription
  )) as r (due);
  select jsonb_agg(r.due) into outbox
  from bus.read_each(array[$outbox$
    select o.type, o.subscription_id, o.of_catch_up, min(o.due_at) as due_at
    from (
      (select o.type, null::int as subscription_id, false as of_catch_up, to_timestamp(bus.uuid_ms(o.event_id) / 1000.0) as due_at from bus.outbox o
      where o.position >= 0 and o.position < 2305843009213693952 order by o.position limit 1000)
      union all
      (select o.type, null, false, to_timestamp(bus.uuid_ms(o.event_id) / 1000.0) from bus.outbox o
      where o.position >= 2305843009213693952 and o.position < 4611686018427387904 order by o.position limit 1000)
      union all
      (select o.type, null, false, o.available_at from bus.outbox o
      where o.available_at <= now() and o.ordering_key is null and o.subscription_id is null order by o.available_at limit 1000)
      union all
      (select o.type, null, false, o.available_at from bus.outbox o
      where o.available_at <= now() and o.ordering_key is not null and o.subscription_id is null order by o.available_at limit 1000)
      union all
      (select h.type, h.subscription_id, h.of_catch_up, h.due_at from bus.read_held_events(1000, true) h)
    ) o
    where isfinite(o.due_at)
    group by 1, 2, 3
  $outbox$]) as r (due);
  return query
  with held as (
    select o.* from jsonb_to_recordset(outbox) as o (type text, subscription_id int, of_catch_up boolean, due_at timestamptz)
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
  from held h where not h.of_catch_up having of_subscription is null;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Privileges. drizzle/roles.sql grants the second one to roles, by name. The first one reads and writes nothing.

revoke execute on function bus.is_background_job(int, text, jsonb), bus.read_held_events(int, boolean) from public;
--> statement-breakpoint
grant execute on function bus.is_background_job(int, text, jsonb) to public;
