-- Ids of keys are made of the time in microseconds and eleven random bits: a copy of the database that came without the values
-- of its sequences must not give a key the id that events of another key stand under. Two at once that are alike violate the
-- primary key, and the claim is made again.
create function bus.new_key_id() returns bigint language sql volatile parallel safe
return ((extract(epoch from clock_timestamp()) * 1000000)::bigint << 11) | floor(random() * 2048)::bigint;
--> statement-breakpoint
ALTER TABLE "bus"."ordered_keys" ALTER COLUMN "id" DROP IDENTITY;--> statement-breakpoint
ALTER TABLE "bus"."ordered_keys" ALTER COLUMN "id" SET DEFAULT bus.new_key_id();
--> statement-breakpoint

-- The schema of pg-boss that this database was migrated with. Migrations say `pgboss`; where another one was chosen,
-- bus.migrate() puts its name in the place of that one while it applies them: see src/outbox/migrate.ts.
create function bus.boss_schema() returns text language sql immutable parallel safe
return 'pgboss';
--> statement-breakpoint

-- Raises the sequences of the schema that have fallen behind their tables: a logical replica, a table that was dumped alone,
-- have rows without the values of their sequences, and would give positions and ids again that are in use. Gives what it
-- raised. Sequences only ever go up. One at a time, under an advisory lock that ends with the transaction.
-- Positions of the outbox lie in four bands, the lowest for what is held; what a key has delivered counts, as events of a key are told apart by it; the
-- id of a subscription that is gone still stands in its receipts. Some room is left for rows that are still on their way.
create function bus.repair_sequences() returns table (name text, was bigint, now bigint) language plpgsql security definer as $body$
#variable_conflict use_column
declare
  owned record;
  next_value bigint;
  highest bigint;
  room bigint;
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
    execute format('select case when is_called then last_value + 1 else last_value end from %s', owned.sequence) into next_value;
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
    continue when highest is null or highest < next_value;
    room := case when owned.seqmax > 2147483647 then 1000000 else 100 end;
    perform setval(owned.sequence, least(highest + room, owned.seqmax));
    name := owned.sequence::text;
    was := next_value;
    now := least(highest + room, owned.seqmax);
    return next;
  end loop;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint
revoke execute on function bus.repair_sequences() from public;
--> statement-breakpoint

-- Whether the default partitions hold rows, counted up to ten thousand, and which partitions of coming months are missing.
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
revoke execute on function bus.partition_state(int) from public;
--> statement-breakpoint

-- As before, but without holding anybody up (docs/adr/0025). Makes the partitions that the log and the ledger lack for last month,
-- this month and some months ahead (UTC), and gives their number. May have to be called again: see below.
--
-- * A partition is attached under ACCESS EXCLUSIVE on the default partition, which readers of the whole log lock, and
--   publishers too while their month has no partition. The tables are made before; the locks are waited for 30 ms each, then all is
--   left to the next call.
-- * Rows that lie in the default partition move along up to a thousand. If a month has more, it stays there: nothing is lost, and
--   bus.health() says so.
-- * A month that has begun, or is about to, gets its partition under SHARE ROW EXCLUSIVE on the parent: a publisher that waits has
--   not chosen a partition yet. If it waited for the default partition it would fail, as that refuses its row afterwards.
-- * Attaching reads the default partition, under the lock, to see that no row of the month is in it, unless a constraint
--   says so. If it is large, one call adds the constraint, the next one validates it, beside all others, and the one after that
--   attaches. The constraint is only ever about months that begin in a day or later, and is taken away where that comes closer.
create or replace function bus.create_partitions(months_ahead int default 3) returns int language plpgsql security definer as $body$
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
    -- Before any lock: a table with its indexes takes longer than all the rest.
    foreach parent in array parents loop
      for month in select * from bus.missing_months(parent, months_ahead) m where m.is_clear order by m.starts_at loop
        execute format('create table bus.%I (like bus.%I including all)', month.partition_name, parent);
        -- Whatever default privileges there are: through the log and the ledger, or not at all.
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
      -- Before the rows are moved: none may come after them.
      execute format('lock table bus.%I in access exclusive mode', parent || '_default');
    end loop;
    foreach parent in array parents loop
      for month in select * from bus.months_of(parent, months_ahead) m where m.partition_name = any (made) order by m.starts_at loop
        created := created + bus.attach_month(parent, month.partition_name, month.lower_bound, month.upper_bound);
      end loop;
      if exists (select from bus.default_constraint(parent)) then
        execute format('alter table bus.%I drop constraint %I', parent || '_default', parent || '_default_without_coming');
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

-- The months, from the last one on, and what their partitions are.
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

-- The constraint on a default partition that says which months are not in it, if there is one; the months stand in its comment.
create function bus.default_constraint(parent text) returns table (is_validated boolean, without_from timestamptz, without_to timestamptz)
language sql stable
begin atomic
  select c.convalidated, to_timestamp(split_part(d.description, ' ', 1)::float8), to_timestamp(split_part(d.description, ' ', 2)::float8)
  from pg_constraint c left join pg_description d on d.classoid = 'pg_constraint'::regclass and d.objoid = c.oid
  where c.conrelid = to_regclass('bus.' || parent || '_default') and c.conname = parent || '_default_without_coming';
end;
--> statement-breakpoint

-- The months that have no partition and may get one: those of which at most a thousand rows lie in the default partition. `is_clear`
-- where attaching it need not read a default partition of more than 8 MiB.
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
    select m.*, coalesce(c.is_validated and m.starts_at >= c.without_from and m.ends_at <= c.without_to, false) as is_without
    from bus.months_of(parent, months_ahead) m left join bus.default_constraint(parent) c on true
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

-- Takes the next step towards a large default partition that need not be read when partitions of coming months are attached. False
-- where there is none to take. Each step ends the call: what it locks is free again before the next one.
create function bus.clear_default_partition(parent text, months_ahead int) returns boolean language plpgsql as $body$
declare
  default_partition text := parent || '_default';
  constraint_name text := parent || '_default_without_coming';
  key_column text := case parent when 'events' then 'id' else 'event_id' end;
  found_constraint record;
  first_start timestamptz;
  last_end timestamptz;
begin
  select * into found_constraint from bus.default_constraint(parent);
  if found then
    if found_constraint.without_from is null or found_constraint.without_from < now() + interval '1 day' then
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

-- Attaches the table of a month, with the rows that lie in the default partition, which the caller has locked. Counted again: some may
-- have come before the lock. Gives the number of partitions, none where there are too many rows by now.
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
revoke execute on function
  bus.months_of(text, int), bus.default_constraint(text), bus.missing_months(text, int), bus.clear_default_partition(text, int),
  bus.attach_month(text, text, uuid, uuid)
from public;
--> statement-breakpoint

-- Asked about the ids that the trigger below does not know to be right: those that are no uuid of version 7, or were not made this
-- week. Gives the id back where it was made within a week of the event's own created_at, as where older events are brought over.
create function bus.check_event_id(id uuid, created_at timestamptz) returns uuid language plpgsql immutable as $body$
begin
  if substr(id::text, 15, 1) <> '7' then
    raise exception 'Expected the id of an event to be a uuid of version 7, got %', id
      using errcode = 'check_violation', constraint = 'events_id', hint = 'Leave the id out, or make it with bus.uuid_v7().';
  end if;
  if isfinite(created_at)
    and id >= bus.uuid_v7_floor(created_at - interval '7 days') and id < bus.uuid_v7_floor(created_at + interval '7 days')
  then
    return id;
  end if;
  raise exception 'Expected the id of an event to be a uuid that was made within 7 days of its created_at, got %', id
    using errcode = 'check_violation', constraint = 'events_id', hint = 'Leave the id out, or make it with bus.uuid_v7().';
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint
revoke execute on function bus.check_event_id(uuid, timestamptz) from public;
--> statement-breakpoint

-- As before, and: ids are looked at, as history and counts find events by the time in their ids; not those of bus.store_events,
-- which makes them itself. And it answers bus.store_events, which has said in the setting bus.told what it stores: somebody else's trigger
-- may change it, or leave it out. Of one event it said id, tenant and type, and the setting is emptied where they are found; of several
-- it said `#`, and is told number and hash of what is there. That costs no look into the log, which the caller may not read.
create or replace function bus.dispatch_inserted_events() returns trigger language plpgsql security definer as $body$
declare
  told text := coalesce(current_setting('bus.told', true), '');
  now_ms bigint;
  earliest uuid;
  latest uuid;
  inserted_count bigint := 1;
  dispatched_count bigint;
  fingerprint bigint;
begin
  if told = '' then
    now_ms := (date_part('epoch', clock_timestamp()) * 1000)::bigint;
    earliest := (lpad(to_hex(now_ms - 604800000), 12, '0') || '00000000000000000000')::uuid;
    latest := (lpad(to_hex(now_ms + 604800000), 12, '0') || '00000000000000000000')::uuid;
  end if;
  insert into bus.outbox (position, event_id, tenant_id, type, payload_bytes, ordering_key, available_at)
  overriding system value
  select
    nextval('bus.outbox_position_seq') + case
      when e.scheduled then 4611686018427387904
      when e.ordering_key is not null then 2305843009213693952
      else 0 end,
    case
      when told = '#' then e.id
      when told = e.id::text || ' ' || e.tenant_id || ' ' || e.type and set_config('bus.told', '', true) = '' then e.id
      when e.id >= earliest and e.id < latest and substr(e.id::text, 15, 1) = '7' then e.id
      else bus.check_event_id(e.id, e.created_at) end,
    e.tenant_id, e.type,
    -- Compressed or stored elsewhere: the relay measures it, not the publisher.
    case when pg_column_size(e.payload) <= 1500 then pg_column_size(e.payload) end,
    e.ordering_key,
    -- Before PostgreSQL 17 infinity cannot be subtracted from, and the relay does.
    case when e.scheduled then least(e.available_at, '9999-12-31 00:00:00+00') end
  -- Asked once: a row whose position says scheduled and whose time says not would never be claimed.
  from (select i.*, coalesce(i.available_at > clock_timestamp(), false) as scheduled from inserted i) e;
  get diagnostics dispatched_count = row_count;
  if told = '#' then
    select count(*), bit_xor(bus.stored_hash(i.id, i.tenant_id, i.type)) into inserted_count, fingerprint from inserted i;
    told := set_config('bus.told', inserted_count || '/' || coalesce(fingerprint, 0), true);
  elsif told = '' or dispatched_count <> 1 then
    inserted_count := (select count(*) from inserted);
  end if;
  if dispatched_count <> inserted_count then
    raise exception 'Only % of % events came into bus.outbox: a trigger or a rule on it leaves rows out', dispatched_count, inserted_count
      using errcode = 'BUS02';
  end if;
  if dispatched_count > 0 and not pg_try_advisory_xact_lock_shared(1651864320, 1) then
    perform pg_notify('bus_doorbell', '');
  end if;
  return null;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint
create function bus.stored_hash(id uuid, tenant_id text, type text) returns bigint language sql immutable parallel safe
return hashtextextended(tenant_id || ' ' || type, uuid_hash_extended(id, 0));
--> statement-breakpoint

-- Raises an error unless all these events are in the log, as they were told. For the rare case in which bus.told does not
-- say so: a trigger of somebody else's may have published too.
create function bus.confirm_stored(ids uuid[], tenant_ids text[], types text[]) returns void language plpgsql stable security definer as $body$
declare
  stored_count bigint := (
    select count(*) from unnest(ids, tenant_ids, types) as t (id, tenant_id, type)
    join bus.events e on e.id = t.id and e.tenant_id = t.tenant_id and e.type = t.type);
begin
  if stored_count <> cardinality(ids) then
    raise exception 'Only % of % events were stored as they were published: a trigger or a rule on bus.events leaves rows out, or changes id, tenant_id or type',
      stored_count, cardinality(ids) using errcode = 'BUS02';
  end if;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off;
--> statement-breakpoint
revoke execute on function bus.confirm_stored(uuid[], text[], text[]) from public;
--> statement-breakpoint

-- As before, but it compares what has been stored with what it was told: an id is given for an event that is there.
create or replace function bus.store_events(
  payloads text, tenant_ids text[], types text[], sources text[],
  subjects text[] default null, schema_versions smallint[] default null,
  event_ids text[] default null, idempotency_keys text[] default null,
  correlation_ids text[] default null, causation_ids uuid[] default null,
  ordering_keys text[] default null, metadata jsonb[] default null, available_ats timestamptz[] default null,
  expires_ats timestamptz[] default null
) returns text language plpgsql as $body$
declare
  new_id uuid;
  ids uuid[];
  first_ids uuid[];
  new_ids uuid[];
  new_tenant_ids text[];
  new_types text[];
  told text;
begin
  if cardinality(tenant_ids) = 1 and event_ids is null and idempotency_keys is null then
    new_id := bus.uuid_v7();
    -- Assigned, not performed: that costs half as much.
    told := set_config('bus.told', new_id::text || ' ' || tenant_ids[1] || ' ' || types[1], true);
    insert into bus.events (
      id, tenant_id, type, source, subject, schema_version, payload,
      correlation_id, causation_id, ordering_key, metadata, available_at, expires_at)
    values (
      new_id, tenant_ids[1], types[1], sources[1], subjects[1], coalesce(schema_versions[1], 1), nullif(payloads, '')::jsonb,
      correlation_ids[1], causation_ids[1], ordering_keys[1], coalesce(metadata[1], '{}'), available_ats[1],
      expires_ats[1]);
    if current_setting('bus.told', true) <> '' then
      perform bus.confirm_stored(array[new_id], tenant_ids, types);
      perform set_config('bus.told', '', true);
    end if;
    return new_id::text;
  end if;
  ids := array(select bus.uuid_v7() from generate_series(1, cardinality(tenant_ids)));
  first_ids := ids;
  if event_ids is not null or idempotency_keys is not null then
    first_ids := bus.claim_event_keys(ids, tenant_ids, event_ids, idempotency_keys);
  end if;
  told := set_config('bus.told', '#', true);
  insert into bus.events (
    id, tenant_id, type, source, subject, schema_version, payload, event_id, idempotency_key,
    correlation_id, causation_id, ordering_key, metadata, available_at, expires_at)
  select
    e.id, e.tenant_id, e.type, e.source, e.subject, coalesce(e.schema_version, 1), nullif(e.payload, '')::jsonb, e.event_id, e.idempotency_key,
    e.correlation_id, e.causation_id, e.ordering_key, coalesce(e.metadata, '{}'), e.available_at, e.expires_at
  from rows from (
    unnest(ids), unnest(first_ids), unnest(tenant_ids), unnest(types), unnest(sources), unnest(subjects),
    unnest(schema_versions), string_to_table(payloads, E'\n'), unnest(event_ids), unnest(idempotency_keys),
    unnest(correlation_ids), unnest(causation_ids), unnest(ordering_keys), unnest(metadata), unnest(available_ats),
    unnest(expires_ats)
  ) with ordinality as e (
    id, first_id, tenant_id, type, source, subject,
    schema_version, payload, event_id, idempotency_key,
    correlation_id, causation_id, ordering_key, metadata, available_at, expires_at, ordinal)
  where e.first_id = e.id
  order by e.ordinal;
  if current_setting('bus.told', true) <> (
    select count(*) || '/' || coalesce(bit_xor(bus.stored_hash(e.id, e.tenant_id, e.type)), 0)
    from unnest(ids, first_ids, tenant_ids, types) as e (id, first_id, tenant_id, type)
    where e.first_id = e.id)
  then
    select array_agg(e.id), array_agg(e.tenant_id), array_agg(e.type) into new_ids, new_tenant_ids, new_types
    from unnest(ids, first_ids, tenant_ids, types) as e (id, first_id, tenant_id, type)
    where e.first_id = e.id;
    perform bus.confirm_stored(coalesce(new_ids, '{}'), new_tenant_ids, new_types);
  end if;
  told := set_config('bus.told', '', true);
  if first_ids = ids then
    return array_to_string(ids, ',');
  end if;
  return (
    select string_agg(e.first_id::text || case when e.first_id <> e.id then '*' else '' end, ',' order by e.ordinal)
    from unnest(ids, first_ids) with ordinality as e (id, first_id, ordinal));
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- As before, but a key that was not stored is an error: it would let the next duplicate through.
create or replace function bus.claim_event_keys(ids uuid[], tenant_ids text[], event_ids text[], idempotency_keys text[]) returns uuid[] language plpgsql security definer as $body$
declare
  first_ids uuid[];
  resolved_ids uuid[];
  claimed_count bigint;
begin
  insert into bus.event_keys (tenant_id, kind, key, event_id)
  select e.tenant_id, k.kind, k.key, e.id
  from unnest(tenant_ids, event_ids, idempotency_keys, ids)
    with ordinality as e (tenant_id, event_id, idempotency_key, id, ordinal)
  cross join lateral (values ('event_id', e.event_id), ('idempotency_key', e.idempotency_key)) as k (kind, key)
  where k.key is not null
  order by e.tenant_id, k.kind, k.key, e.ordinal
  on conflict do nothing;
  get diagnostics claimed_count = row_count;
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
  if first_ids = ids then
    -- None was there, so each has been written: unless a trigger of somebody else's keeps it out.
    if claimed_count < coalesce(cardinality(array_remove(event_ids, null)), 0) + coalesce(cardinality(array_remove(idempotency_keys, null)), 0) then
      raise exception 'Only % keys came into bus.event_keys: a trigger or a rule on it leaves rows out', claimed_count using errcode = 'BUS02';
    end if;
    return ids;
  end if;
  -- Whoever calls this by itself, with the id of a stored event, would have that event's keys mean another one.
  if exists (select from bus.events e where e.id = any (ids)) then
    raise exception 'Expected ids of events that are not stored yet' using errcode = '22023';
  end if;
  -- What an event repeats may itself repeat an earlier one of the call. Each pass doubles the steps taken.
  loop
    resolved_ids := array(
      select coalesce(f.first_id, e.first_id)
      from unnest(first_ids) with ordinality as e (first_id, ordinal)
      left join unnest(ids, first_ids) as f (id, first_id) on f.id = e.first_id
      order by e.ordinal);
    exit when resolved_ids = first_ids;
    first_ids := resolved_ids;
  end loop;
  -- An event can be a duplicate by one key and bring another, new one: that key now means the first event too.
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

-- As before, but a cancellation that was not written down is an error.
create or replace function bus.cancel(id uuid, tenant_id text default null) returns boolean language plpgsql security definer as $body$
#variable_conflict use_variable
declare
  removed_tenant_id text;
  -- Not current_user, which is the owner in here.
  publisher name := case current_setting('role') when 'none' then session_user else current_setting('role')::name end;
begin
  if not bus.publishes_freely(publisher)
    and not pg_has_role(publisher, (select c.relowner from pg_class c where c.oid = 'bus.events'::regclass), 'usage')
    and not (select r.rolbypassrls from pg_roles r where r.rolname = publisher)
    and exists (select from bus.events e where e.id = cancel.id and not bus.may_publish(publisher, e.source, e.type))
  then
    raise exception 'no rule lets this role publish such events, or cancel them' using errcode = 'insufficient_privilege';
  end if;
  delete from bus.outbox o
  where o.event_id = cancel.id and (cancel.tenant_id is null or o.tenant_id = cancel.tenant_id)
    -- As the trigger stored it: the index finds the row among a million.
    and o.available_at = (
      select least(e.available_at, '9999-12-31 00:00:00+00') from bus.events e where e.id = cancel.id)
  returning o.tenant_id into removed_tenant_id;
  if not found then
    return false;
  end if;
  insert into bus.cancellations (event_id, tenant_id) values (cancel.id, removed_tenant_id);
  if not found then
    raise exception 'The cancellation was not stored: a trigger or a rule on bus.cancellations leaves rows out' using errcode = 'BUS02';
  end if;
  return true;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off;
