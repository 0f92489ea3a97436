-- A partition is not dropped under a replay that began in the meantime.
--
-- It replaces what 0012 defines: bus.range_holds and bus.drop_range.

-- What may select events of any range: a replay, a redrive or the like that is under way. The form is that of bus.range_holds. Only reads.
create function bus.operation_holds() returns table (kind text, subscription text, held_count bigint, detail text)
language sql volatile as $body$
  select 'operation', null::text, count(*), string_agg(o.kind || ' ' || o.id, ', ' order by o.id)
  from bus.operations o where o.state in ('running', 'paused', 'stopped') and (o.kind in ('redrive', 'discard', 'replay', 'catch-up') or (o.kind = 'remove' and o.options ->> 'moveTo' is not null))
  having count(*) > 0
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- What keeps the events of a range from being dropped: what is undelivered of them anywhere, counted up to 10,001 of each kind.
--   undispatched    in the outbox, also held for a subscription
--   scheduled       in the outbox, not due yet
--   ordered         waiting behind the earlier events of their key
--   waiting         in a job of the queue, for its first attempt or running
--   retrying, dead, blocked, parked   in bus.failing; dead letters that failed before dead_before do not count
--   operation       a replay, a redrive or the like is under way, which may select them
-- An event moves from the outbox to a job and from there to bus.failing, so they are read in this order, each by a statement of its own.
--
-- due_until is what bus.scheduled_until says: the job of a scheduled event is found by the time it was due. Jobs of releases before this one
-- have ids that do not say when their events were published, so all jobs are read for events from before it was installed.
-- Only reads.
create or replace function bus.range_holds(lower_bound uuid, upper_bound uuid, due_until timestamptz default null, dead_before timestamptz default null)
returns table (kind text, subscription text, held_count bigint, detail text) language plpgsql volatile security definer as $body$
#variable_conflict use_column
declare
  first_job uuid := bus.uuid_v7_floor(to_timestamp((bus.uuid_ms(lower_bound) - 16384) / 1000.0));
  last_job uuid := greatest(upper_bound::text, coalesce(bus.uuid_v7_floor(due_until + interval '1 millisecond')::text, ''))::uuid;
  is_before_ids boolean := (select to_timestamp(bus.uuid_ms(lower_bound) / 1000.0) < s.created_at from bus.retention_state s);
begin
  return query
  select 'undispatched', null::text, count(*), null::text
  from (select from bus.outbox o where o.available_at is null and o.event_id >= lower_bound and o.event_id < upper_bound limit 10001) o having count(*) > 0;
  return query
  select 'scheduled', null::text, count(*), null::text
  from (select from bus.outbox o where o.available_at is not null and o.event_id >= lower_bound and o.event_id < upper_bound limit 10001) o having count(*) > 0;
  return query
  select 'ordered', s.name, count(*), null::text
  from (
    select k.subscription_id from bus.ordered_events o join bus.ordered_keys k on k.id = o.key_id
    where o.event_id >= lower_bound and o.event_id < upper_bound and o.seq > k.done_seq limit 10001) w
  join bus.subscriptions s on s.id = w.subscription_id
  group by s.name;
  return query
  select 'waiting', s.name, (r.jobs ->> 'held')::bigint, null::text
  from bus.read_each(array(
    select format($job$
      select %1$s as subscription_id, count(*) as held from (
        select from pgboss.job b
        where b.name = %2$L and b.state < 'completed' and %6$s
          and exists (
            select from jsonb_array_elements_text(case jsonb_typeof(b.data -> 'eventIds') when 'array' then b.data -> 'eventIds' else '[]' end) as e (id)
            where e.id collate "C" >= %4$L and e.id collate "C" < %5$L)
        limit 10001) j
      having count(*) > 0
    $job$, s.id, 'bus.' || s.name, null, lower_bound, upper_bound,
      case when is_before_ids then 'true' else format('b.id >= %L and b.id < %L', first_job, last_job) end)
    from bus.subscriptions s)) as r (jobs)
  join bus.subscriptions s on s.id = (r.jobs ->> 'subscription_id')::int;
  return query
  select f.state, s.name, f.n, null::text
  from bus.subscriptions s
  cross join lateral (
    select f.state, count(*) as n from (
      select f.state from bus.failing f
      where f.subscription_id = s.id and f.event_id >= lower_bound and f.event_id < upper_bound
        and (f.state <> 'dead' or dead_before is null or f.failed_at >= dead_before)
      limit 10001) f
    group by f.state) f;
  if dead_before is not null then
    -- Dead letters that are redriven: their jobs have any id, and remember the dead letter.
    return query
    select 'waiting', s.name, (r.jobs ->> 'held')::bigint, null::text
    from bus.read_each(array(
      select format($job$
        select %1$s as subscription_id, count(*) as held from (
          select from bus.failing f
          where f.subscription_id = %1$s and f.event_id >= %3$L and f.event_id < %4$L and f.state = 'dead' and f.failed_at < %5$L
            and exists (select from pgboss.job b where b.name = %2$L and b.source_root_id = f.job_id and b.state < 'completed')
          limit 10001) j
        having count(*) > 0
      $job$, s.id, 'bus.' || s.name, lower_bound, upper_bound, dead_before)
      from bus.subscriptions s
      where exists (select from bus.failing f where f.subscription_id = s.id and f.event_id >= lower_bound and f.event_id < upper_bound))) as r (jobs)
    join bus.subscriptions s on s.id = (r.jobs ->> 'subscription_id')::int;
  end if;
  return query select h.* from bus.operation_holds() h;
end
$body$ set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Drops the partitions of a range, if the policy says so and nothing holds them back, records it, and says what came of it:
--   gone       there are none
--   kept       the policy keeps them
--   held       something is undelivered: `holds` says what
--   changed    rows have changed since they were archived: they must be archived again
--   busy       they are in use, or partitions are being created: call it again
--   dropped    done
-- It is for the owner to drop a table. A role that calls this drops nothing but what the policy of the services says, and nothing that is
-- undelivered or, where the policy asks for an archive, not archived.
--
-- Locks, all until the transaction ends: the advisory lock (1651864320, 5), without waiting. SHARE on the partitions themselves, which keeps
-- writers of that old range away while it is checked. Then ACCESS EXCLUSIVE on the four tables and their default partitions, which every
-- publisher and worker needs: it waits at most 15 ms for each, the log last, and if one of them is in use it lets go of them and tries
-- again after a pause, for two seconds. What holds a range may have come meanwhile: under these locks it looks again. Files are removed after
-- the locks are released.
-- Repeating: a second call finds them gone.
create or replace function bus.drop_range(lower_bound uuid, upper_bound uuid, of_actor text, due_until timestamptz default null, of_reason text default null)
returns jsonb language plpgsql security definer as $body$
declare
  policy jsonb := bus.retention_policy();
  age_days double precision := (extract(epoch from clock_timestamp()) - bus.uuid_ms(upper_bound) / 1000.0) / 86400;
  parents text[] := array(
    select p.parent from (values ('attempts', 'attemptsDays', 1), ('receipt_batches', 'ledgerDays', 2), ('receipts', 'ledgerDays', 3), ('events', 'logDays', 4))
      as p (parent, item, ordinal)
    where age_days > (policy ->> p.item)::int and age_days > 0 order by p.ordinal);
  names text[] := array(
    select k.partition_name from unnest(parents) with ordinality as p (parent, ordinal) cross join lateral bus.partitions_of(p.parent) k
    where k.lower_bound = drop_range.lower_bound and k.upper_bound = drop_range.upper_bound order by p.ordinal);
  archive bus.archives%rowtype;
  holds jsonb;
  parent text;
  row_estimate bigint;
  bytes bigint;
  found record;
begin
  if names = '{}' then
    return jsonb_build_object('outcome', case when parents = '{}' then 'kept' else 'gone' end);
  end if;
  if not pg_try_advisory_xact_lock(1651864320, 5) then
    return '{"outcome": "busy"}';
  end if;
  begin
    execute 'lock table ' || (select string_agg(format('bus.%I', n.name), ', ') from unnest(names) as n (name)) || ' in share mode';
  exception when lock_not_available or deadlock_detected then
    return '{"outcome": "busy"}';
  end;
  select jsonb_agg(jsonb_strip_nulls(to_jsonb(h))) into holds
  from bus.range_holds(lower_bound, upper_bound, due_until, now() - make_interval(days => (policy ->> 'deadLettersDays')::int)) h;
  if holds is not null then
    return jsonb_build_object('outcome', 'held', 'holds', holds);
  end if;
  if (policy ->> 'archive')::boolean and 'events' = any (parents) then
    select a.* into archive from bus.archives a
    where a.lower_bound = drop_range.lower_bound and a.upper_bound = drop_range.upper_bound and a.state = 'archived' for update;
    if archive.id is null then
      return '{"outcome": "changed"}';
    end if;
    foreach parent in array parents loop
      select h.* into found from bus.range_hash(parent, lower_bound, upper_bound) h;
      if found.row_count <> (archive.tables -> parent ->> 'rowCount')::bigint or found.row_hash <> (archive.tables -> parent ->> 'rowHash')::numeric then
        update bus.archives a set state = 'archiving' where a.id = archive.id;
        return '{"outcome": "changed"}';
      end if;
    end loop;
  end if;
  select sum(pg_total_relation_size(('bus.' || quote_ident(n.name))::regclass))::bigint,
    greatest(max(case when n.name ~ '^events_' then c.reltuples end), 0)::bigint into bytes, row_estimate
  from unnest(names) as n (name) join pg_class c on c.oid = ('bus.' || quote_ident(n.name))::regclass;
  for attempt in 1 .. 20 loop
    begin
      foreach parent in array parents loop
        execute format('lock table only bus.%I in access exclusive mode', parent);
        execute format('lock table bus.%I in access exclusive mode', parent || '_default');
      end loop;
      -- A replay may have begun, and chosen events of the range, while this waited for its locks. From here on nobody reads them.
      select jsonb_agg(jsonb_strip_nulls(to_jsonb(h))) into holds from bus.operation_holds() h;
      if holds is not null then
        return jsonb_build_object('outcome', 'held', 'holds', holds);
      end if;
      execute 'drop table ' || (select string_agg(format('bus.%I', n.name), ', ') from unnest(names) as n (name));
      insert into bus.audit (actor, action, reason, change, outcome, finished_at)
      values (of_actor, 'retention.drop', of_reason, jsonb_build_object('partitions', to_jsonb(names), 'policy', policy),
        jsonb_strip_nulls(jsonb_build_object('estimatedEventCount', row_estimate, 'bytes', bytes, 'archive', archive.name)), now());
      if 'events' = any (parents) then
        update bus.retention_state s set dropped_before = greatest(s.dropped_before, to_timestamp(bus.uuid_ms(upper_bound) / 1000.0));
        update bus.archives a set state = 'dropped', dropped_at = clock_timestamp() where a.id = archive.id;
      end if;
      return jsonb_strip_nulls(jsonb_build_object('outcome', 'dropped', 'partitions', to_jsonb(names), 'eventCount', row_estimate, 'bytes', bytes));
    exception when lock_not_available or deadlock_detected then
      perform pg_sleep(0.04 + random() * 0.12);
    end;
  end loop;
  return '{"outcome": "busy"}';
end
$body$ set search_path = pg_catalog, pg_temp set lock_timeout = '15ms' set jit = off;
--> statement-breakpoint

revoke execute on function bus.operation_holds() from public;
