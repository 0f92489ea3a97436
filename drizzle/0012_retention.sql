-- Retention: what of the log and the ledger is kept how long, how partitions of past months are archived and dropped, and how everything else
-- that grows is deleted. See docs/adr/0035-retention-and-archive.md.
--
-- * bus.retention_policies: what each service has asked for. Of several services the longest time counts.
-- * bus.retention_state: one row with what retention has done so far, and where it goes on.
-- * bus.partition_spans: whether the log gets partitions of months or of days.
-- * bus.archives, bus.archive_files, bus.archive_erasures: what was copied out of the log before it was dropped.
--
-- It replaces what earlier files define: bus.claim_event_keys (0000), bus.months_of (0002), bus.partition_state (0005).

-- Tables. src/retention/schema.ts describes their columns.

create table bus.retention_policies (
  service text primary key not null,
  policy jsonb not null,
  declared_at timestamp (6) with time zone default now() not null,
  constraint retention_policies_object check (jsonb_typeof(policy) = 'object')
);
--> statement-breakpoint
create table bus.retention_state (
  id boolean primary key default true not null,
  created_at timestamp (6) with time zone default clock_timestamp() not null,
  dropped_before timestamp (6) with time zone,
  round_began_at timestamp (6) with time zone,
  round_ended_at timestamp (6) with time zone,
  error text,
  key_block bigint default 0 not null,
  keys_swept_at timestamp (6) with time zone,
  constraint retention_state_one_row check (id)
);
--> statement-breakpoint
insert into bus.retention_state (id) values (true);
--> statement-breakpoint
create table bus.partition_spans (
  starts_at timestamp (6) with time zone primary key not null,
  span text not null,
  constraint partition_spans_span_check check (span in ('month', 'day'))
);
--> statement-breakpoint
create table bus.archives (
  id uuid primary key default bus.uuid_v7() not null,
  lower_bound uuid not null,
  upper_bound uuid not null,
  name text not null,
  state text default 'archiving' not null,
  service text not null,
  manifest text,
  tables jsonb default '{}' not null,
  started_at timestamp (6) with time zone default clock_timestamp() not null,
  archived_at timestamp (6) with time zone,
  dropped_at timestamp (6) with time zone,
  constraint archives_state_check check (state in ('archiving', 'archived', 'dropped'))
);
--> statement-breakpoint
create table bus.archive_files (
  archive_id uuid not null,
  name text not null,
  table_name text not null,
  row_count bigint not null,
  byte_count bigint not null,
  sha256 text not null,
  subject_hashes bigint[] not null,
  constraint archive_files_archive_id_name_pk primary key (archive_id, name)
);
--> statement-breakpoint
create table bus.archive_erasures (
  archive_id uuid not null,
  file text not null,
  tenant_id text not null,
  subject text not null,
  requested_at timestamp (6) with time zone default clock_timestamp() not null,
  rewritten_at timestamp (6) with time zone,
  constraint archive_erasures_pk primary key (archive_id, file, tenant_id, subject)
);
--> statement-breakpoint

-- Indexes.

-- A range may be dropped more than once: old events that are copied in later get a partition again.
create unique index archives_open_idx on bus.archives (lower_bound, upper_bound) where state <> 'dropped';
--> statement-breakpoint

-- Functions: what applies.

-- The policy that applies: of each item the longest time that a service has asked for, or its default. A log that no service has asked to
-- delete is kept. The ledger is kept no longer than the log, and the attempts no longer than the ledger. Dead letters hold their events for
-- ever, unless every service that deletes the log says how long. Only reads.
create function bus.retention_policy() returns jsonb language sql stable
begin atomic
  select jsonb_build_object(
    'logDays', p.log, 'ledgerDays', least(p.ledger, p.log), 'attemptsDays', least(p.attempts, p.ledger, p.log),
    'keysDays', coalesce(p.keys, 30), 'rollupsDays', coalesce(p.rollups, 30), 'auditDays', coalesce(p.audit, 365),
    'operationsDays', coalesce(p.operations, 90), 'deadLettersDays', p.dead, 'archive', coalesce(p.archive, false))
  from (
    select max((r.policy ->> 'logDays')::int) as log, max((r.policy ->> 'ledgerDays')::int) as ledger,
      max((r.policy ->> 'attemptsDays')::int) as attempts, max((r.policy ->> 'keysDays')::int) as keys,
      max((r.policy ->> 'rollupsDays')::int) as rollups, max((r.policy ->> 'auditDays')::int) as audit,
      max((r.policy ->> 'operationsDays')::int) as operations,
      case when bool_and(r.policy ? 'deadLettersDays') filter (where r.policy ? 'logDays') then max((r.policy ->> 'deadLettersDays')::int) end as dead,
      bool_or((r.policy ->> 'archive')::boolean) as archive
    from bus.retention_policies r
  ) p;
end;
--> statement-breakpoint

-- The partitions of a table of the log, but for the default one, and their bounds. Only reads.
create function bus.partitions_of(parent text) returns table (partition_name text, lower_bound uuid, upper_bound uuid) language sql stable
begin atomic
  select c.relname::text, b.bounds[1]::uuid, b.bounds[2]::uuid
  from pg_inherits i
  join pg_class c on c.oid = i.inhrelid
  cross join lateral regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([0-9a-f-]{36})''\) TO \(''([0-9a-f-]{36})''\)') as b (bounds)
  where i.inhparent = to_regclass('bus.' || parent) and b.bounds is not null;
end;
--> statement-breakpoint

-- The ranges that have or should have a partition, from last month on: a month each, or a day each where bus.partition_spans says so. Days
-- only from eight days ago to two weeks from now: an event's id is at most a week away from its time. Ranges that retention has dropped do not
-- come back, and neither do ranges that a partition of another name covers. Only reads.
create or replace function bus.months_of(parent text, months_ahead int)
returns table (starts_at timestamptz, ends_at timestamptz, partition_name text, lower_bound uuid, upper_bound uuid)
language sql stable
begin atomic
  with months as (
    select m.month_start, coalesce((
      select s.span from bus.partition_spans s where s.starts_at <= m.month_start at time zone 'utc' order by s.starts_at desc limit 1), 'month') as span
    from generate_series(-1, months_ahead) as n (ahead)
    cross join lateral (select date_trunc('month', now() at time zone 'utc') + make_interval(months => n.ahead) as month_start) m
  ), ranges as (
    select m.month_start as starts, m.month_start + interval '1 month' as ends, to_char(m.month_start, '_YYYY_MM') as suffix
    from months m where m.span = 'month'
    union all
    select d.day_start, d.day_start + interval '1 day', to_char(d.day_start, '_YYYY_MM_DD')
    from months m
    cross join lateral generate_series(m.month_start, m.month_start + interval '1 month' - interval '1 day', interval '1 day') as d (day_start)
    where m.span = 'day'
      and d.day_start between date_trunc('day', now() at time zone 'utc') - interval '8 days' and date_trunc('day', now() at time zone 'utc') + interval '14 days'
  ), known as materialized (
    select k.* from bus.partitions_of(parent) k
  )
  select r.starts at time zone 'utc', r.ends at time zone 'utc', parent || r.suffix,
    bus.uuid_v7_floor(r.starts at time zone 'utc'), bus.uuid_v7_floor(r.ends at time zone 'utc')
  from ranges r
  where not exists (select from bus.retention_state s where r.ends at time zone 'utc' <= s.dropped_before)
    and not exists (
      select from known k
      where k.partition_name <> parent || r.suffix
        and k.lower_bound < bus.uuid_v7_floor(r.ends at time zone 'utc') and k.upper_bound > bus.uuid_v7_floor(r.starts at time zone 'utc'))
  order by r.starts;
end;
--> statement-breakpoint

-- Whether the default partitions have rows, counted up to ten thousand, and which partitions of coming months or days are missing. Only
-- reads.
create or replace function bus.partition_state(months_ahead int default 3)
returns table (default_events int, default_deliveries int, missing text[]) language plpgsql stable security definer as $body$
begin
  return query select
    (select count(*)::int from (select from bus.events_default limit 10000) e),
    (select least(10000, count(*))::int from (
      (select from bus.receipts_default limit 10000) union all
      (select from bus.receipt_batches_default limit 10000) union all
      (select from bus.attempts_default limit 10000)) d),
    array(
      select m.partition_name
      from (values ('events'), ('receipts'), ('receipt_batches'), ('attempts')) as p (parent)
      cross join lateral bus.months_of(p.parent, months_ahead) m
      where m.starts_at > now() and to_regclass('bus.' || m.partition_name) is null
      order by 1);
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- From the beginning of the next month on (the one after it, if that is less than a day away), the log and the ledger get partitions of this
-- span. The empty partitions that were made ahead for that time are dropped; bus.create_partitions makes the new ones. Returns when it begins;
-- null if it is so already.
-- Locks: the advisory lock (1651864320, 5); ACCESS EXCLUSIVE on the four tables and their default partitions, waiting 15 ms for each.
-- Raises lock_not_available if they are in use: call it again. Repeating: changes nothing.
create function bus.set_partition_span(new_span text, of_actor text, of_reason text default null) returns timestamptz language plpgsql security definer as $body$
declare
  begins timestamptz := (date_trunc('month', (now() + interval '1 day') at time zone 'utc') + interval '1 month') at time zone 'utc';
  known_span text;
  parent text;
  ahead record;
  is_filled boolean;
begin
  known_span := coalesce((select s.span from bus.partition_spans s where s.starts_at <= begins order by s.starts_at desc limit 1), 'month');
  if known_span = new_span then
    return null;
  end if;
  if not pg_try_advisory_xact_lock(1651864320, 5) then
    raise exception 'partitions are being created or dropped' using errcode = 'lock_not_available';
  end if;
  insert into bus.audit (actor, action, reason, change, outcome, finished_at)
  values (of_actor, 'retention.setPartitionSpan', of_reason, jsonb_build_object('from', known_span, 'to', new_span, 'startsAt', begins), '{}', now());
  delete from bus.partition_spans s where s.starts_at >= begins;
  insert into bus.partition_spans (starts_at, span) values (begins, new_span);
  foreach parent in array array['attempts', 'receipt_batches', 'receipts', 'events'] loop
    execute format('lock table only bus.%I in access exclusive mode', parent);
    execute format('lock table bus.%I in access exclusive mode', parent || '_default');
    for ahead in select p.partition_name from bus.partitions_of(parent) p where p.lower_bound >= bus.uuid_v7_floor(begins) loop
      execute format('select exists (select from bus.%I)', ahead.partition_name) into is_filled;
      if is_filled then
        raise exception 'bus.% has rows already', ahead.partition_name using errcode = 'object_not_in_prerequisite_state';
      end if;
      execute format('drop table bus.%I', ahead.partition_name);
    end loop;
  end loop;
  return begins;
end
$body$ set search_path = pg_catalog, pg_temp set lock_timeout = '15ms';
--> statement-breakpoint

-- Functions: what holds a partition back.

-- Until when events of a range of the log were or are scheduled, null if none of them was scheduled beyond the range. Reads the range once.
create function bus.scheduled_until(lower_bound uuid, upper_bound uuid) returns timestamptz language plpgsql stable security definer as $body$
declare
  latest timestamptz;
begin
  execute format('select max(e.available_at) from bus.events e where e.id >= %L and e.id < %L and isfinite(e.available_at) and e.available_at >= to_timestamp(%s)',
    lower_bound, upper_bound, bus.uuid_ms(upper_bound) / 1000.0) into latest;
  return latest;
end
$body$ set search_path = pg_catalog, pg_temp set jit = off;
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
create function bus.range_holds(lower_bound uuid, upper_bound uuid, due_until timestamptz default null, dead_before timestamptz default null)
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
  return query
  select 'operation', null::text, count(*), string_agg(o.kind || ' ' || o.id, ', ' order by o.id)
  from bus.operations o where o.state in ('running', 'paused', 'stopped') and (o.kind in ('redrive', 'discard', 'replay', 'catch-up') or (o.kind = 'remove' and o.options ->> 'moveTo' is not null))
  having count(*) > 0;
end
$body$ set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Number and hash of the rows of a range of a table of the log, whatever their order. Reads the range once.
create function bus.range_hash(parent text, lower_bound uuid, upper_bound uuid) returns table (row_count bigint, row_hash numeric)
language plpgsql stable security definer as $body$
begin
  if parent not in ('events', 'receipts', 'receipt_batches', 'attempts') then
    raise exception 'Expected a table of the log, got %', parent using errcode = '22023';
  end if;
  return query execute format('select count(*), coalesce(sum(hash_record_extended(t, 0)::numeric), 0) from bus.%1$I t where t.%2$I >= %3$L and t.%2$I < %4$L',
    parent, case parent when 'events' then 'id' else 'event_id' end, lower_bound, upper_bound);
end
$body$ set search_path = pg_catalog, pg_temp set jit = off;
--> statement-breakpoint

-- Functions: dropping.

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
-- again after a pause, for two seconds. Files are removed after the locks are released.
-- Repeating: a second call finds them gone.
create function bus.drop_range(lower_bound uuid, upper_bound uuid, of_actor text, due_until timestamptz default null, of_reason text default null)
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

-- Functions: deleting in slices.

-- Deletes keys that are older than the policy keeps them, from the next so many pages of bus.event_keys, in the order in which they are
-- stored: so no index is needed that every publisher would have to keep. Returns how many, and whether that was the end of the table.
-- Locks: the rows that it deletes. A publisher that repeats such a key at this moment waits until they are gone.
-- Repeating: goes on with the next pages, and at the end of the table begins again.
create function bus.prune_event_keys(page_count int) returns table (deleted bigint, is_end boolean) language plpgsql security definer as $body$
declare
  pages bigint := pg_relation_size('bus.event_keys') / current_setting('block_size')::int;
  first_page bigint := (select s.key_block from bus.retention_state s for update);
  keep_from timestamptz := now() - make_interval(days => (bus.retention_policy() ->> 'keysDays')::int);
begin
  execute format('delete from bus.event_keys k where k.ctid >= %L::tid and k.ctid < %L::tid and k.created_at < %L',
    format('(%s,0)', first_page), format('(%s,0)', first_page + page_count), keep_from);
  get diagnostics deleted = row_count;
  is_end := first_page + page_count >= pages;
  update bus.retention_state s set key_block = case when is_end then 0 else first_page + page_count end,
    keys_swept_at = case when is_end then now() else s.keys_swept_at end;
  return next;
end
$body$ set search_path = pg_catalog, pg_temp set jit = off;
--> statement-breakpoint

-- Deletes at most so many rows of a kind that are older than the policy keeps them, or whose events were dropped, and returns how many.
--   rollups, audit, operations   by age; an audit record or an operation that is under way stays
--   cancellations, event_copies, failing   of dropped events: of dead letters that no longer hold their events, with their jobs
--   receipts, receipt_batches, attempts   of dropped events, in the default partitions
-- Locks: the rows that it deletes. Repeating: what is deleted is gone; call it until it returns 0.
create function bus.prune_rows(of_kind text, max_count int) returns bigint language plpgsql security definer as $body$
declare
  kept jsonb := bus.retention_policy();
  dropped uuid := (select bus.uuid_v7_floor(s.dropped_before) from bus.retention_state s);
  pruned bigint := 0;
  queue record;
begin
  if of_kind = 'rollups' then
    delete from bus.rollups r using (
      select x.minute, x.subscription_id, x.instance_id from bus.rollups x
      where x.minute < now() - make_interval(days => (kept ->> 'rollupsDays')::int) order by 1 limit max_count) old
    where r.minute = old.minute and r.subscription_id = old.subscription_id and r.instance_id = old.instance_id;
  elsif of_kind = 'audit' then
    delete from bus.audit a where a.id in (
      select x.id from bus.audit x
      where x.id < bus.uuid_v7_floor(now() - make_interval(days => (kept ->> 'auditDays')::int))
        and (x.finished_at is not null or x.operation_id is null)
      order by 1 limit max_count);
  elsif of_kind = 'operations' then
    delete from bus.operations o where o.id in (
      select x.id from bus.operations x
      where x.id < bus.uuid_v7_floor(now() - make_interval(days => (kept ->> 'operationsDays')::int))
        and x.finished_at < now() - make_interval(days => (kept ->> 'operationsDays')::int)
      order by 1 limit max_count);
  elsif dropped is null then
    return 0;
  elsif of_kind in ('cancellations', 'event_copies') then
    execute format($statement$
      delete from bus.%1$I c where c.event_id in (
        select x.event_id from bus.%1$I x
        where x.event_id < %2$L and not exists (select from bus.partitions_of('events') p where x.event_id >= p.lower_bound and x.event_id < p.upper_bound)
          and not exists (select from bus.events_default d where d.id = x.event_id)
        order by 1 limit %3$s)
    $statement$, of_kind, dropped, max_count);
  elsif of_kind = 'failing' then
    for queue in
      select s.id, 'bus.' || s.name || '.dead' as name from bus.subscriptions s
      union all select r.id, 'bus.' || s.name || '.dead' from bus.replays r join bus.subscriptions s on s.id = r.subscription_id
      order by 1
    loop
      execute format($statement$
        with gone as (
          delete from bus.failing f where f.subscription_id = %1$s and f.event_id in (
            select x.event_id from bus.failing x
            where x.subscription_id = %1$s and x.event_id < %2$L and x.state = 'dead'
              and not exists (select from bus.partitions_of('events') p where x.event_id >= p.lower_bound and x.event_id < p.upper_bound)
              and not exists (select from bus.events_default d where d.id = x.event_id)
            order by 1 limit %3$s)
          returning f.job_id
        ), jobs as (
          delete from pgboss.job b using gone g where b.name = %4$L and b.id = g.job_id
        ), roots as (
          delete from pgboss.job b using gone g where b.name = %4$L and b.source_root_id = g.job_id and b.id <> g.job_id
        )
        select count(*) from gone
      $statement$, queue.id, dropped, max_count, queue.name) into pruned;
      exit when pruned > 0;
    end loop;
    return pruned;
  elsif of_kind in ('receipts', 'receipt_batches', 'attempts') then
    execute format(
      'delete from bus.%1$I d where d.ctid = any (array(select x.ctid from bus.%1$I x where x.event_id < %2$L limit %3$s))',
      of_kind || '_default', dropped, max_count);
  else
    raise exception 'Unknown kind of rows: %', of_kind using errcode = '22023';
  end if;
  get diagnostics pruned = row_count;
  return pruned;
end
$body$ set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Functions: default partitions.

-- Takes the next step towards an empty default partition of a table of the log, without moving a row: the default partition becomes the
-- partition of the range that has none, and an empty table becomes the default partition. Says which step it has taken:
--   empty      there is nothing to do
--   step       a step is done: call it again
--   adopted    done
--   mixed      its rows are of ranges between which there are partitions. They stay: they are delivered and read like all others.
--   busy       it is in use: call it again
--
-- A constraint says that all rows are of that range, and is validated while publishers go on; so nothing is read under the last lock. While
-- it is there, which is as long as that takes, the default partition refuses events of other ranges without a partition: those that are
-- copied in from years ago.
-- Locks: the advisory lock (1651864320, 5), without waiting. ACCESS EXCLUSIVE on the default partition to add the constraint, SHARE UPDATE
-- EXCLUSIVE to validate it; ACCESS EXCLUSIVE on the table and its default partition for the exchange. It waits 15 ms for each.
-- Repeating: takes the next step, until there is none.
create function bus.adopt_default_partition(parent text, of_actor text) returns text language plpgsql security definer as $body$
declare
  default_partition text := parent || '_default';
  constraint_name text := parent || '_default_is_range';
  key_column text := case parent when 'events' then 'id' else 'event_id' end;
  first_id uuid;
  last_id uuid;
  low uuid;
  high uuid;
  is_validated boolean;
  new_name text;
begin
  if parent not in ('events', 'receipts', 'receipt_batches', 'attempts') then
    raise exception 'Expected a table of the log, got %', parent using errcode = '22023';
  end if;
  if not pg_try_advisory_xact_lock(1651864320, 5) then
    return 'busy';
  end if;
  select c.convalidated into is_validated from pg_constraint c where c.conrelid = to_regclass('bus.' || default_partition) and c.conname = constraint_name;
  execute format('select d.%1$I from bus.%2$I d order by 1 limit 1', key_column, default_partition) into first_id;
  execute format('select d.%1$I from bus.%2$I d order by 1 desc limit 1', key_column, default_partition) into last_id;
  low := coalesce((select max(p.upper_bound::text)::uuid from bus.partitions_of(parent) p where p.upper_bound <= first_id), '00000000-0000-0000-0000-000000000000');
  high := (select min(p.lower_bound::text)::uuid from bus.partitions_of(parent) p where p.lower_bound > first_id);
  begin
    if first_id is null or high is null or last_id >= high then
      if is_validated is not null then
        execute format('alter table bus.%I drop constraint %I', default_partition, constraint_name);
      end if;
      return case when first_id is null then 'empty' else 'mixed' end;
    end if;
    if is_validated is null then
      execute format('alter table bus.%1$I add constraint %2$I check (%3$I >= %4$L and %3$I < %5$L) not valid',
        default_partition, constraint_name, key_column, low, high);
      return 'step';
    end if;
    if not is_validated then
      execute format('alter table bus.%I validate constraint %I', default_partition, constraint_name);
      return 'step';
    end if;
    -- Before any lock, because a table with its indexes takes longer than all the rest.
    execute format('create table bus.%I (like bus.%I including all)', default_partition || '_new', parent);
    execute format('alter table bus.%I enable row level security', default_partition || '_new');
    new_name := parent || case
      when high = bus.uuid_v7_floor((date_trunc('month', to_timestamp(bus.uuid_ms(low) / 1000.0) at time zone 'utc') + interval '1 month') at time zone 'utc')
        and low = bus.uuid_v7_floor(date_trunc('month', to_timestamp(bus.uuid_ms(low) / 1000.0) at time zone 'utc') at time zone 'utc')
      then to_char(to_timestamp(bus.uuid_ms(low) / 1000.0) at time zone 'utc', '_YYYY_MM')
      else to_char(to_timestamp(bus.uuid_ms(high) / 1000.0) at time zone 'utc', '"_until_"YYYY_MM_DD') end;
    execute format('lock table only bus.%I in access exclusive mode', parent);
    execute format('lock table bus.%I in access exclusive mode', default_partition);
    if exists (select from bus.default_partition_constraint(parent)) then
      execute format('alter table bus.%I drop constraint %I', default_partition, default_partition || '_excludes_months');
    end if;
    execute format('alter table bus.%I detach partition bus.%I', parent, default_partition);
    execute format('alter table bus.%I rename to %I', default_partition, new_name);
    execute format('alter table bus.%I rename to %I', default_partition || '_new', default_partition);
    execute format('alter table bus.%I attach partition bus.%I for values from (%L) to (%L)', parent, new_name, low, high);
    execute format('alter table bus.%I attach partition bus.%I default', parent, default_partition);
    execute format('alter table bus.%I drop constraint %I', new_name, constraint_name);
    insert into bus.audit (actor, action, change, outcome, finished_at)
    values (of_actor, 'retention.adoptDefaultPartition', jsonb_build_object('partition', new_name), '{}', now());
    return 'adopted';
  exception
    when lock_not_available or deadlock_detected then
      return 'busy';
    when check_violation then
      execute format('alter table bus.%I drop constraint %I', default_partition, constraint_name);
      return 'mixed';
  end;
end
$body$ set search_path = pg_catalog, pg_temp set lock_timeout = '15ms' set jit = off;
--> statement-breakpoint

-- Functions: publishing.

-- Claims the business ids and idempotency keys of some events, given as columns. Returns, for each event, the id of the first
-- event with one of its keys: its own id if its keys are new. Only for new ids: stored events keep their keys.
--
-- Locks: the unique index, key by key in the order of tenant, kind and key. Two calls with the same keys wait for each other
-- and never deadlock.
-- Repeating: a second call has new ids. It returns the ids of the first call, and writes only keys that are new.
-- Beside retention: a key that is too old may be deleted between the insert, which finds it, and the statement that reads it. Then the insert is
-- done again.
-- A session keeps its plans, also one that was made while the table was small: each key is looked up in the primary key, and
-- the settings exclude any other plan.
create or replace function bus.claim_event_keys(ids uuid[], tenant_ids text[], event_ids text[], idempotency_keys text[]) returns uuid[] language plpgsql security definer as $body$
declare
  first_ids uuid[];
  resolved_ids uuid[];
  inserted_count bigint;
  claimed_count bigint := 0;
  key_count bigint := coalesce(cardinality(array_remove(event_ids, null)), 0) + coalesce(cardinality(array_remove(idempotency_keys, null)), 0);
begin
  for pass in 1 .. 3 loop
    insert into bus.event_keys (tenant_id, kind, key, event_id)
    select e.tenant_id, k.kind, k.key, e.id
    from unnest(tenant_ids, event_ids, idempotency_keys, ids)
      with ordinality as e (tenant_id, event_id, idempotency_key, id, ordinal)
    cross join lateral (values ('event_id', e.event_id), ('idempotency_key', e.idempotency_key)) as k (kind, key)
    where k.key is not null
    order by e.tenant_id, k.kind, k.key, e.ordinal
    on conflict do nothing;
    get diagnostics inserted_count = row_count;
    claimed_count := claimed_count + inserted_count;
    first_ids := array(
      select coalesce(
        nullif((
          select k.event_id from bus.event_keys k
          where k.tenant_id = e.tenant_id and k.kind = 'event_id' and k.key = e.event_id), e.id),
        nullif((
          select k.event_id from bus.event_keys k
          where k.tenant_id = e.tenant_id and k.kind = 'idempotency_key' and k.key = e.idempotency_key), e.id),
        e.id)
      from unnest(tenant_ids, event_ids, idempotency_keys, ids)
        with ordinality as e (tenant_id, event_id, idempotency_key, id, ordinal)
      order by e.ordinal);
    exit when first_ids <> ids or claimed_count >= key_count;
  end loop;
  if first_ids = ids then
    -- None was there, so each has been written, unless another trigger keeps it out.
    if claimed_count < key_count then
      raise exception 'Only % keys came into bus.event_keys: a trigger or a rule on it leaves rows out', claimed_count using errcode = 'BUS02';
    end if;
    return ids;
  end if;
  -- A direct call with the id of a stored event could point the keys of that event to another one.
  if exists (select from bus.events e where e.id = any (ids)) then
    raise exception 'Expected ids of events that are not stored yet' using errcode = '22023';
  end if;
  -- The event that a duplicate repeats may itself be a duplicate of an earlier one of the call. Each pass doubles the steps taken.
  loop
    resolved_ids := array(
      select coalesce(f.first_id, e.first_id)
      from unnest(first_ids) with ordinality as e (first_id, ordinal)
      left join unnest(ids, first_ids) as f (id, first_id) on f.id = e.first_id
      order by e.ordinal);
    exit when resolved_ids = first_ids;
    first_ids := resolved_ids;
  end loop;
  -- An event can be a duplicate by one key and have another, new one: that key points to the first event from now on.
  insert into bus.event_keys (tenant_id, kind, key, event_id)
  select e.tenant_id, k.kind, k.key, e.first_id
  from unnest(tenant_ids, event_ids, idempotency_keys, ids, first_ids)
    as e (tenant_id, event_id, idempotency_key, id, first_id)
  cross join lateral (values ('event_id', e.event_id), ('idempotency_key', e.idempotency_key)) as k (kind, key)
  where e.first_id <> e.id and e.id = (
    select claimed.event_id from bus.event_keys claimed
    where claimed.tenant_id = e.tenant_id and claimed.kind = k.kind and claimed.key = k.key)
  on conflict (tenant_id, kind, key) do update set event_id = excluded.event_id;
  return first_ids;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_nestloop = off set jit = off;
--> statement-breakpoint

-- Row security. A tenant reads none of these.

alter table bus.retention_policies enable row level security;
--> statement-breakpoint
alter table bus.retention_state enable row level security;
--> statement-breakpoint
alter table bus.partition_spans enable row level security;
--> statement-breakpoint
alter table bus.archives enable row level security;
--> statement-breakpoint
alter table bus.archive_files enable row level security;
--> statement-breakpoint
alter table bus.archive_erasures enable row level security;
--> statement-breakpoint

-- Privileges. drizzle/roles.sql grants the rest to roles, by name.

revoke execute on function
  bus.retention_policy(), bus.partitions_of(text), bus.set_partition_span(text, text, text), bus.scheduled_until(uuid, uuid),
  bus.range_holds(uuid, uuid, timestamptz, timestamptz), bus.range_hash(text, uuid, uuid), bus.drop_range(uuid, uuid, text, timestamptz, text),
  bus.prune_event_keys(int), bus.prune_rows(text, int), bus.adopt_default_partition(text, text)
from public;
