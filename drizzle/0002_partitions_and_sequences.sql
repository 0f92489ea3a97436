-- Partitions and sequences: how the log and the receipts get a partition for each month, and how the sequences of a copied database
-- are repaired. See docs/adr/0025-a-log-among-others.md.

-- Functions: months.

-- The months from the last one on, the names of their partitions and their bounds.
create function bus.months_of(parent text, months_ahead int)
returns table (starts_at timestamptz, ends_at timestamptz, partition_name text, lower_bound uuid, upper_bound uuid)
language sql stable
begin atomic
  select m.month_start at time zone 'utc', (m.month_start + interval '1 month') at time zone 'utc',
    parent || to_char(m.month_start, '_YYYY_MM'),
    bus.uuid_v7_floor(m.month_start at time zone 'utc'), bus.uuid_v7_floor((m.month_start + interval '1 month') at time zone 'utc')
  from generate_series(-1, months_ahead) as n (ahead)
  cross join lateral (select date_trunc('month', now() at time zone 'utc') + make_interval(months => n.ahead) as month_start) m;
end;
--> statement-breakpoint

-- The constraint on a default partition that says which months are not in it, if there is one. Its comment names the months.
create function bus.default_partition_constraint(parent text) returns table (is_validated boolean, excludes_from timestamptz, excludes_to timestamptz)
language sql stable
begin atomic
  select c.convalidated, to_timestamp(split_part(d.description, ' ', 1)::float8), to_timestamp(split_part(d.description, ' ', 2)::float8)
  from pg_constraint c left join pg_description d on d.classoid = 'pg_constraint'::regclass and d.objoid = c.oid
  where c.conrelid = to_regclass('bus.' || parent || '_default') and c.conname = parent || '_default_excludes_months';
end;
--> statement-breakpoint

-- The months that have no partition and may get one: at most a thousand of their rows are in the default partition. `is_clear` says
-- that attaching the partition does not read a default partition of more than 8 MiB. Only reads.
create function bus.missing_months(parent text, months_ahead int)
returns table (starts_at timestamptz, ends_at timestamptz, partition_name text, row_count int, is_clear boolean)
language plpgsql as $body$
#variable_conflict use_column
declare
  month record;
  default_partition text := parent || '_default';
  key_column text := case parent when 'events' then 'id' else 'event_id' end;
  is_large boolean := pg_relation_size(('bus.' || default_partition)::regclass) > 8388608;
begin
  for month in
    select m.*, coalesce(c.is_validated and m.starts_at >= c.excludes_from and m.ends_at <= c.excludes_to, false) as is_without
    from bus.months_of(parent, months_ahead) m left join bus.default_partition_constraint(parent) c on true
    where to_regclass('bus.' || m.partition_name) is null
  loop
    execute format('select count(*) from (select from bus.%I where %I >= %L and %I < %L limit 1001) r',
      default_partition, key_column, month.lower_bound, key_column, month.upper_bound) into row_count;
    if row_count > 1000 then
      raise warning 'bus.% stays in bus.%: there are more than 1000 rows of that month', month.partition_name, default_partition;
      continue;
    end if;
    starts_at := month.starts_at;
    ends_at := month.ends_at;
    partition_name := month.partition_name;
    is_clear := not is_large or month.is_without;
    return next;
  end loop;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- Functions: creating partitions. bus.create_partitions calls the others, and holds the advisory lock.

-- Takes the next step towards a large default partition that need not be read when partitions of coming months are attached: adds,
-- validates or drops the constraint. Returns false if there is no step to take. Each step ends the call, so that its locks are
-- released before the next one.
-- Locks: ACCESS EXCLUSIVE on the default partition to add or drop the constraint, SHARE UPDATE EXCLUSIVE to validate it.
-- Repeating: takes the next step, until there is none.
create function bus.clear_default_partition(parent text, months_ahead int) returns boolean language plpgsql as $body$
declare
  default_partition text := parent || '_default';
  constraint_name text := parent || '_default_excludes_months';
  key_column text := case parent when 'events' then 'id' else 'event_id' end;
  found_constraint record;
  first_start timestamptz;
  last_end timestamptz;
begin
  select * into found_constraint from bus.default_partition_constraint(parent);
  if found then
    if found_constraint.excludes_from is null or found_constraint.excludes_from < now() + interval '1 day' then
      execute format('alter table bus.%I drop constraint %I', default_partition, constraint_name);
      return true;
    end if;
    if found_constraint.is_validated then
      return false;
    end if;
    begin
      execute format('alter table bus.%I validate constraint %I', default_partition, constraint_name);
    exception when check_violation then
      execute format('alter table bus.%I drop constraint %I', default_partition, constraint_name);
    end;
    return true;
  end if;
  select min(m.starts_at), max(m.ends_at) into first_start, last_end
  from bus.missing_months(parent, months_ahead) m
  where not m.is_clear and m.row_count = 0 and m.starts_at >= now() + interval '1 day';
  if first_start is null then
    return false;
  end if;
  execute format('alter table bus.%1$I add constraint %2$I check (%3$I < %4$L or %3$I >= %5$L) not valid',
    default_partition, constraint_name, key_column, bus.uuid_v7_floor(first_start), bus.uuid_v7_floor(last_end));
  execute format('comment on constraint %I on bus.%I is %L', constraint_name, default_partition,
    extract(epoch from first_start)::bigint || ' ' || extract(epoch from last_end)::bigint);
  return true;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- Attaches the table of a month, and moves its rows out of the default partition. Counts them again, because some may have come before
-- the lock. Returns the number of partitions attached: none if there are too many rows by now.
-- Locks: the caller has locked the default partition; attaching takes SHARE UPDATE EXCLUSIVE on the parent.
create function bus.attach_month(parent text, partition_name text, lower_bound uuid, upper_bound uuid) returns int language plpgsql as $body$
declare
  default_partition text := parent || '_default';
  key_column text := case parent when 'events' then 'id' else 'event_id' end;
  row_count int;
begin
  execute format('select count(*) from (select from bus.%I where %I >= %L and %I < %L limit 1001) r',
    default_partition, key_column, lower_bound, key_column, upper_bound) into row_count;
  if row_count > 1000 then
    execute format('drop table bus.%I', partition_name);
    return 0;
  end if;
  if row_count > 0 then
    execute format(
      'with moved as (delete from bus.%1$I where %2$I >= %3$L and %2$I < %4$L returning *) insert into bus.%5$I select * from moved',
      default_partition, key_column, lower_bound, upper_bound, partition_name);
  end if;
  execute format('alter table bus.%I attach partition bus.%I for values from (%L) to (%L)', parent, partition_name, lower_bound, upper_bound);
  return 1;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- Creates the partitions that the log and the receipts lack for last month, this month and some months ahead (UTC), without delaying
-- publishers or readers. Returns their number. It may have to be called again: see below. Runs as the owner of the log, so that a worker may
-- call it. A partition has row security and no policies, so it is read through its parent only.
--
-- * A partition is attached under ACCESS EXCLUSIVE on the default partition, which readers of the whole log lock, and publishers
--   too while their month has no partition. The tables are created before the locks are taken. It waits 30 ms for each lock, and
--   then leaves everything to the next call.
-- * Up to a thousand rows of a month move out of the default partition. A month with more stays there: nothing is lost, and
--   bus.health() reports it.
-- * A month that has begun, or begins within a day, gets its partition under SHARE ROW EXCLUSIVE on the parent: a publisher that
--   waits there has not chosen a partition yet. If it waited for the default partition instead, that would refuse its row afterwards.
-- * Attaching reads the default partition, under the lock, to see that it has no row of the month, unless a constraint says so. If
--   the default partition is large, one call adds the constraint, the next one validates it without blocking others, and the one after
--   that attaches. The constraint is only ever about months that begin in a day or later, and is dropped when that comes closer.
--
-- Locks: the advisory lock (1651864320, 5), without waiting: if it is taken, another process does the work. Then for each parent, the
-- log first, SHARE ROW EXCLUSIVE on the parent if needed, and ACCESS EXCLUSIVE on its default partition.
-- Repeating: creates what is still missing, and returns 0 if nothing is.
create function bus.create_partitions(months_ahead int default 3) returns int language plpgsql security definer as $body$
declare
  parents constant text[] := array['events', 'deliveries'];
  parent text;
  month record;
  made text[] := '{}';
  has_begun boolean;
  created int := 0;
begin
  if months_ahead > 24 then
    raise exception 'Expected months_ahead to be at most 24, got %', months_ahead using errcode = '22023';
  end if;
  if not pg_try_advisory_xact_lock(1651864320, 5) then
    return 0;
  end if;
  begin
    foreach parent in array parents loop
      if bus.clear_default_partition(parent, months_ahead) then
        return 0;
      end if;
    end loop;
    -- Before any lock, because a table with its indexes takes longer than all the rest.
    foreach parent in array parents loop
      for month in select * from bus.missing_months(parent, months_ahead) m where m.is_clear order by m.starts_at loop
        execute format('create table bus.%I (like bus.%I including all)', month.partition_name, parent);
        -- Default privileges may grant access to it: it is read through the log and the receipts, or not at all.
        execute format('alter table bus.%I enable row level security', month.partition_name);
        made := made || month.partition_name;
      end loop;
    end loop;
    if made = '{}' then
      return 0;
    end if;
    foreach parent in array parents loop
      select bool_or(m.starts_at < now() + interval '1 day') into has_begun
      from bus.months_of(parent, months_ahead) m where m.partition_name = any (made);
      continue when has_begun is null;
      if has_begun then
        execute format('lock table bus.%I in share row exclusive mode', parent);
      end if;
      -- Before the rows are moved, because no row may come after them.
      execute format('lock table bus.%I in access exclusive mode', parent || '_default');
    end loop;
    foreach parent in array parents loop
      for month in select * from bus.months_of(parent, months_ahead) m where m.partition_name = any (made) order by m.starts_at loop
        created := created + bus.attach_month(parent, month.partition_name, month.lower_bound, month.upper_bound);
      end loop;
      if exists (select from bus.default_partition_constraint(parent)) then
        execute format('alter table bus.%I drop constraint %I', parent || '_default', parent || '_default_excludes_months');
      end if;
    end loop;
  exception when lock_not_available or deadlock_detected then
    raise warning 'partitions could not be created now: bus.events or bus.deliveries is in use';
    return 0;
  end;
  return created;
end
$body$ set search_path = pg_catalog, pg_temp set lock_timeout = '30ms';
--> statement-breakpoint

-- Whether the default partitions have rows, counted up to ten thousand, and which partitions of coming months are missing. Only reads.
create function bus.partition_state(months_ahead int default 3)
returns table (default_events int, default_deliveries int, missing text[]) language plpgsql stable security definer as $body$
begin
  return query select
    (select count(*)::int from (select from bus.events_default limit 10000) e),
    (select count(*)::int from (select from bus.deliveries_default limit 10000) d),
    array(
      select p.parent || to_char(m.month_start, '_YYYY_MM')
      from generate_series(1, months_ahead) as n (ahead)
      cross join lateral (select date_trunc('month', now() at time zone 'utc') + make_interval(months => n.ahead) as month_start) m
      cross join (values ('events'), ('deliveries')) as p (parent)
      where to_regclass('bus.' || p.parent || to_char(m.month_start, '_YYYY_MM')) is null
      order by 1);
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- Functions: sequences.

-- Raises the sequences of the schema that have fallen behind their tables. A logical replica, or a table that was dumped alone, has
-- rows without the values of its sequences, and would reuse positions and ids. Returns the sequences that it raised.
-- The positions of the outbox are in four ranges (see bus.outbox). The events of a key are told apart by what the key has delivered.
-- The id of a deleted subscription is still in its receipts. Each sequence is raised with a margin for rows that are still on their way,
-- and read after its table: in the other order, an event published in between looked like a sequence that is behind.
--
-- Locks: the advisory lock (1651864320, 7), until the transaction ends: one call at a time.
-- Repeating: sequences only ever go up; a second call finds nothing to raise.
create function bus.repair_sequences() returns table (name text, was bigint, now bigint) language plpgsql security definer as $body$
#variable_conflict use_column
declare
  owned record;
  next_value bigint;
  highest bigint;
  margin bigint;
begin
  perform pg_advisory_xact_lock(1651864320, 7);
  for owned in
    select s.oid::regclass as sequence, d.refobjid::regclass as parent, a.attname as attribute, q.seqmax
    from pg_class s
    join pg_sequence q on q.seqrelid = s.oid
    join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = s.oid and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')
    join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
    where s.relnamespace = 'bus'::regnamespace and s.relkind = 'S'
    order by 1
  loop
    if owned.parent = 'bus.outbox'::regclass then
      select greatest(
        (select max(o.position) from bus.outbox o where o.position < 0) + 4611686018427387904,
        (select max(o.position) from bus.outbox o where o.position between 0 and 2305843009213693951),
        (select max(o.position) from bus.outbox o where o.position >= 2305843009213693952 and o.position < 4611686018427387904) - 2305843009213693952,
        (select max(o.position) from bus.outbox o where o.position >= 4611686018427387904) - 4611686018427387904)
      into highest;
    elsif owned.parent = 'bus.ordered_events'::regclass then
      select greatest((select max(e.seq) from bus.ordered_events e), (select max(greatest(k.done_seq, k.singly_through_seq)) from bus.ordered_keys k))
      into highest;
    elsif owned.parent = 'bus.subscriptions'::regclass and owned.attribute = 'id' then
      select greatest(
        (select max(s.id) from bus.subscriptions s), (select max(d.subscription_id) from bus.deliveries d), (select max(k.subscription_id) from bus.ordered_keys k))
      into highest;
    else
      execute format('select max(%I) from %s', owned.attribute, owned.parent) into highest;
    end if;
    -- Read after its table: an event published meanwhile took its value from the sequence before.
    execute format('select case when is_called then last_value + 1 else last_value end from %s', owned.sequence) into next_value;
    continue when highest is null or highest < next_value;
    margin := case when owned.seqmax > 2147483647 then 1000000 else 100 end;
    perform setval(owned.sequence, least(highest + margin, owned.seqmax));
    name := owned.sequence::text;
    was := next_value;
    now := least(highest + margin, owned.seqmax);
    return next;
  end loop;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- Privileges. drizzle/roles.sql grants the rest to roles, by name.

revoke execute on function
  bus.months_of(text, int), bus.default_partition_constraint(text), bus.missing_months(text, int), bus.clear_default_partition(text, int),
  bus.attach_month(text, text, uuid, uuid), bus.create_partitions(int), bus.partition_state(int), bus.repair_sequences()
from public;
