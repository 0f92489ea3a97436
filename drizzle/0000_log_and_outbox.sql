-- The log and the outbox: which events were published, which of them the relay has not handed over yet, and the functions
-- that publish and cancel.

create schema if not exists bus;
--> statement-breakpoint

-- The schema of pg-boss that this database was migrated with. The migrations say `pgboss`; if another one was chosen,
-- bus.migrate() replaces the name while it applies them, and compares it before it applies newer ones: see
-- src/migrations/migrate.ts.
create function bus.boss_schema() returns text language sql immutable parallel safe
return 'pgboss';
--> statement-breakpoint

-- Functions that the defaults of columns call.

-- A time-ordered uuid (RFC 9562, version 7) of the database's clock, ascending within a session. PostgreSQL 18 has one.
-- On older servers the clock supplies milliseconds and a 12-bit fraction of one, and the session remembers the last
-- microsecond that it used, so that two calls never return the same time.
do $body$
begin
  if current_setting('server_version_num')::int >= 180000 then
    create or replace function bus.uuid_v7() returns uuid language sql volatile parallel safe
    return pg_catalog.uuidv7();
  else
    create or replace function bus.uuid_v7() returns uuid language plpgsql volatile as $uuid$
    declare
      now_us bigint := (extract(epoch from clock_timestamp()) * 1000000)::bigint;
      last_us bigint := coalesce(nullif(current_setting('bus.last_uuid_us', true), ''), '0')::bigint;
    begin
      if now_us <= last_us then
        now_us := last_us + 1;
      end if;
      perform set_config('bus.last_uuid_us', now_us::text, false);
      return (
        lpad(to_hex(now_us / 1000), 12, '0')
        || '7' || lpad(to_hex((now_us % 1000) * 4096 / 1000), 3, '0')
        || right(replace(gen_random_uuid()::text, '-', ''), 16)
      )::uuid;
    end
    $uuid$ set search_path = pg_catalog, pg_temp;
  end if;
end
$body$;
--> statement-breakpoint

-- The lowest uuid v7 of the millisecond of a moment: the bound of a partition. Immutable, because the epoch of a timestamptz
-- depends on no setting.
create function bus.uuid_v7_floor(moment timestamptz) returns uuid language sql immutable parallel safe
return (lpad(to_hex(greatest(floor(extract(epoch from moment) * 1000), 0)::bigint), 12, '0') || '00000000000000000000')::uuid;
--> statement-breakpoint

-- Tables. src/outbox/schema/schema.ts describes their columns.

-- The log. To insert a row is to publish an event. The database refuses what publish() refuses: an index has an unclear error
-- for keys that are too long, every relay matches types against patterns, and handlers are promised metadata by name.
-- The payload is measured as text, because a number such as 1e100000 is short in the table and long for its readers: ten
-- thousand of them are a payload that no statement can read, and the relay would never get past it.
create table bus.events (
  id uuid primary key default bus.uuid_v7() not null,
  tenant_id text not null,
  type text not null,
  source text not null,
  subject text,
  schema_version smallint default 1 not null,
  payload jsonb not null,
  event_id text,
  idempotency_key text,
  correlation_id text,
  causation_id uuid,
  ordering_key text,
  metadata jsonb default '{}'::jsonb not null,
  available_at timestamp (6) with time zone,
  expires_at timestamp (6) with time zone,
  created_at timestamp (6) with time zone default clock_timestamp() not null,
  erased_at timestamp (6) with time zone,
  constraint events_text_lengths check (
    char_length(tenant_id) between 1 and 255 and char_length(type) between 1 and 255
    and char_length(source) between 1 and 255 and char_length(subject) <= 1024
    and char_length(event_id) between 1 and 255 and char_length(idempotency_key) between 1 and 255
    and char_length(correlation_id) <= 255 and char_length(ordering_key) <= 255
  ),
  constraint events_metadata_object check (jsonb_typeof(metadata) = 'object' and pg_column_size(metadata) <= 65536),
  constraint events_payload_length check (
    (pg_column_size(payload) <= 8000 and pg_column_compression(payload) is null)
    or octet_length(payload::text) <= 67108864
  )
) partition by range (id);
--> statement-breakpoint
create table bus.events_default partition of bus.events default;
--> statement-breakpoint

-- Business ids and idempotency keys. They have the limits of the log too, because a key is claimed before its event is stored.
create table bus.event_keys (
  tenant_id text not null,
  kind text not null,
  key text not null,
  event_id uuid not null,
  created_at timestamp (6) with time zone default clock_timestamp() not null,
  constraint event_keys_tenant_id_kind_key_pk primary key (tenant_id, kind, key),
  constraint event_keys_text_lengths check (char_length(tenant_id) between 1 and 255 and char_length(key) between 1 and 255)
);
--> statement-breakpoint

-- Events that the relay has not handed over yet. The position says how a row is claimed:
--   from 0       events without an ordering key
--   from 2^61    events with an ordering key
--   from 2^62    scheduled events
--   below 0      events held for one subscription (subscription_id), because a lock that its jobs need was taken
-- Each claim reads its own range of the primary key, so a million scheduled events do not slow the other claims.
-- Rows live for milliseconds: vacuum by count, not by share of the table, and without pausing.
create table bus.outbox (
  position bigint primary key generated always as identity (sequence name bus.outbox_position_seq),
  event_id uuid not null,
  tenant_id text not null,
  type text not null,
  payload_bytes integer,
  ordering_key text,
  available_at timestamp (6) with time zone,
  subscription_id integer
) with (
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000,
  autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
  autovacuum_vacuum_cost_delay = 0
);
--> statement-breakpoint

-- Scheduled events that were cancelled before their time came.
create table bus.cancellations (
  event_id uuid primary key not null,
  tenant_id text not null,
  cancelled_at timestamp (6) with time zone default clock_timestamp() not null
);
--> statement-breakpoint

-- Indexes.

create index events_tenant_id_idx on bus.events (tenant_id, id);
--> statement-breakpoint
create index events_type_idx on bus.events (type, id);
--> statement-breakpoint
create index events_correlation_idx on bus.events (tenant_id, correlation_id) where correlation_id is not null;
--> statement-breakpoint
create index events_causation_idx on bus.events (causation_id) where causation_id is not null;
--> statement-breakpoint
-- For bus.erase. A hash, because a subject may be longer than an index entry.
create index events_subject_idx on bus.events (hashtextextended(subject, hashtextextended(tenant_id, 0))) where subject is not null;
--> statement-breakpoint
-- For bus.cancel.
create index outbox_scheduled_idx on bus.outbox (event_id, available_at) where available_at is not null;
--> statement-breakpoint
-- The relay claims scheduled events with an ordering key apart from the others: neither claim reads the entries of the other.
create index outbox_due_idx on bus.outbox (available_at) where available_at is not null and ordering_key is null;
--> statement-breakpoint
create index outbox_due_ordered_idx on bus.outbox (available_at, position) where available_at is not null and ordering_key is not null;
--> statement-breakpoint
create index outbox_held_idx on bus.outbox (subscription_id, tenant_id, ordering_key, position) where subscription_id is not null;
--> statement-breakpoint

-- Functions: inserting into the log.

-- Checks an id that the trigger of the log does not accept at a glance: one that is not a uuid of version 7, or was not made
-- within a week of now. Returns the id if it was made within a week of the event's own created_at, as for older events that
-- are copied in. Takes no locks and writes nothing.
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

-- What bus.store_events and the trigger of the log compare of an event.
create function bus.stored_hash(id uuid, tenant_id text, type text) returns bigint language sql immutable parallel safe
return hashtextextended(tenant_id || ' ' || type, uuid_hash_extended(id, 0));
--> statement-breakpoint

-- The trigger of the log, once for each statement that inserts: writes the outbox rows, and notifies the relay if it sleeps.
--
-- Ids: history and counts find events by the time in their ids, so the trigger checks them, except those of bus.store_events,
-- which makes its own.
-- Answer: bus.store_events says in the setting bus.expected_insert what it inserts, because another trigger may change rows or leave
-- them out. For one event it says id, tenant and type, and the trigger empties the setting if it finds them; for several it
-- says `#`, and the trigger puts number and hash of the rows there. So the caller need not read the log, which it may not.
-- Locks: it tries the advisory lock (1651864320, 1) in shared mode, without waiting, and holds it until the transaction ends.
-- A relay that is awake leaves the lock free, and no notification is sent, because NOTIFY takes a lock of the whole database
-- at commit. A relay that sleeps holds the lock exclusively: to get it, it waits for every publisher that saw it awake.
-- Repeating: runs once for each statement; the outbox row commits or rolls back with the event.
create function bus.dispatch_inserted_events() returns trigger language plpgsql security definer as $body$
declare
  expected text := coalesce(current_setting('bus.expected_insert', true), '');
  now_ms bigint;
  earliest uuid;
  latest uuid;
  inserted_count bigint := 1;
  dispatched_count bigint;
  fingerprint bigint;
begin
  if expected = '' then
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
      when expected = '#' then e.id
      when expected = e.id::text || ' ' || e.tenant_id || ' ' || e.type and set_config('bus.expected_insert', '', true) = '' then e.id
      when e.id >= earliest and e.id < latest and substr(e.id::text, 15, 1) = '7' then e.id
      else bus.check_event_id(e.id, e.created_at) end,
    e.tenant_id, e.type,
    -- Null for a payload that may be compressed or stored elsewhere: the relay measures it, not the publisher.
    case when pg_column_size(e.payload) <= 1500 then pg_column_size(e.payload) end,
    e.ordering_key,
    -- The relay subtracts from it, and before PostgreSQL 17 nothing can be subtracted from infinity.
    case when e.scheduled then least(e.available_at, '9999-12-31 00:00:00+00') end
  -- Decided once: a row with the position of a scheduled event and without its time would never be claimed.
  from (select i.*, coalesce(i.available_at > clock_timestamp(), false) as scheduled from inserted i) e;
  get diagnostics dispatched_count = row_count;
  if expected = '#' then
    select count(*), bit_xor(bus.stored_hash(i.id, i.tenant_id, i.type)) into inserted_count, fingerprint from inserted i;
    expected := set_config('bus.expected_insert', inserted_count || '/' || coalesce(fingerprint, 0), true);
  elsif expected = '' or dispatched_count <> 1 then
    inserted_count := (select count(*) from inserted);
  end if;
  if dispatched_count <> inserted_count then
    raise exception 'Only % of % events came into bus.outbox: a trigger or a rule on it leaves rows out', dispatched_count, inserted_count
      using errcode = 'BUS02';
  end if;
  if dispatched_count > 0 and not pg_try_advisory_xact_lock_shared(1651864320, 1) then
    perform pg_notify('bus_outbox', '');
  end if;
  return null;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- Raises an error unless all these events are in the log, as bus.store_events inserted them. For the rare case in which the
-- trigger's answer in bus.expected_insert does not show it: another trigger may have published too. Only reads.
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

-- Functions: publishing.

-- Claims the business ids and idempotency keys of some events, given as columns. Returns, for each event, the id of the first
-- event with one of its keys: its own id if its keys are new. Only for new ids: stored events keep their keys.
--
-- Locks: the unique index, key by key in the order of tenant, kind and key. Two calls with the same keys wait for each other
-- and never deadlock.
-- Repeating: a second call has new ids. It returns the ids of the first call, and writes only keys that are new.
-- A session keeps its plans, also one that was made while the table was small: each key is looked up in the primary key, and
-- the settings exclude any other plan.
create function bus.claim_event_keys(ids uuid[], tenant_ids text[], event_ids text[], idempotency_keys text[]) returns uuid[] language plpgsql security definer as $body$
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
    -- None was there, so each has been written, unless another trigger keeps it out.
    if claimed_count < coalesce(cardinality(array_remove(event_ids, null)), 0) + coalesce(cardinality(array_remove(idempotency_keys, null)), 0) then
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

-- Stores events, given as columns; payloads are JSON texts, one a line. Returns the ids, separated by commas; a duplicate is
-- the id of the first event and `*`. An id stands for an event that is stored: the answer of the trigger is compared.
--
-- The ids are made before the insert, because a role that may insert and not read cannot use `returning`. The insert runs with
-- the rights of the caller, so that the policies of the log apply to the caller.
-- Locks: those of bus.claim_event_keys, then those of the trigger of the log.
-- Repeating: stores new events, except for those with a business id or an idempotency key.
create function bus.store_events(
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
  expected text;
begin
  if cardinality(tenant_ids) = 1 and event_ids is null and idempotency_keys is null then
    new_id := bus.uuid_v7();
    -- Assigned, not performed: that costs half as much.
    expected := set_config('bus.expected_insert', new_id::text || ' ' || tenant_ids[1] || ' ' || types[1], true);
    insert into bus.events (
      id, tenant_id, type, source, subject, schema_version, payload,
      correlation_id, causation_id, ordering_key, metadata, available_at, expires_at)
    values (
      new_id, tenant_ids[1], types[1], sources[1], subjects[1], coalesce(schema_versions[1], 1), nullif(payloads, '')::jsonb,
      correlation_ids[1], causation_ids[1], ordering_keys[1], coalesce(metadata[1], '{}'), available_ats[1],
      expires_ats[1]);
    if current_setting('bus.expected_insert', true) <> '' then
      perform bus.confirm_stored(array[new_id], tenant_ids, types);
      perform set_config('bus.expected_insert', '', true);
    end if;
    return new_id::text;
  end if;
  ids := array(select bus.uuid_v7() from generate_series(1, cardinality(tenant_ids)));
  first_ids := ids;
  if event_ids is not null or idempotency_keys is not null then
    first_ids := bus.claim_event_keys(ids, tenant_ids, event_ids, idempotency_keys);
  end if;
  expected := set_config('bus.expected_insert', '#', true);
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
  if current_setting('bus.expected_insert', true) <> (
    select count(*) || '/' || coalesce(bit_xor(bus.stored_hash(e.id, e.tenant_id, e.type)), 0)
    from unnest(ids, first_ids, tenant_ids, types) as e (id, first_id, tenant_id, type)
    where e.first_id = e.id)
  then
    select array_agg(e.id), array_agg(e.tenant_id), array_agg(e.type) into new_ids, new_tenant_ids, new_types
    from unnest(ids, first_ids, tenant_ids, types) as e (id, first_id, tenant_id, type)
    where e.first_id = e.id;
    perform bus.confirm_stored(coalesce(new_ids, '{}'), new_tenant_ids, new_types);
  end if;
  expected := set_config('bus.expected_insert', '', true);
  if first_ids = ids then
    return array_to_string(ids, ',');
  end if;
  return (
    select string_agg(e.first_id::text || case when e.first_id <> e.id then '*' else '' end, ',' order by e.ordinal)
    from unnest(ids, first_ids) with ordinality as e (id, first_id, ordinal));
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- Publishes events, given as a JSON array of objects. An unknown field is refused: a misspelt `eventId` would silently switch
-- off the deduplication. Locks and repeating: as bus.store_events.
create function bus.publish(new_events jsonb) returns table (ordinal bigint, id uuid, duplicate boolean) language plpgsql as $body$
#variable_conflict use_column
declare
  unknown_field text := (
    select k.key from jsonb_array_elements(new_events) as e (event)
    cross join lateral jsonb_object_keys(case jsonb_typeof(e.event) when 'object' then e.event else '{}' end) as k (key)
    where k.key not in (
      'tenantId', 'type', 'source', 'subject', 'schemaVersion', 'payload', 'eventId', 'idempotencyKey', 'correlationId',
      'causationId', 'orderingKey', 'metadata', 'availableAt', 'expiresAt')
    limit 1);
begin
  if unknown_field is not null then
    raise exception 'Unknown field % of an event', quote_ident(left(unknown_field, 80)) using errcode = '22023';
  end if;
  return query
  select r.ordinal, left(r.reply, 36)::uuid, length(r.reply) > 36
  from string_to_table((
    select bus.store_events(
      string_agg(coalesce((new_events -> (e.ordinal - 1)::int -> 'payload')::text, ''), E'\n' order by e.ordinal),
      array_agg(e.tenant_id order by e.ordinal), array_agg(e.type order by e.ordinal), array_agg(e.source order by e.ordinal),
      array_agg(e.subject order by e.ordinal), array_agg(e.schema_version order by e.ordinal),
      case when count(e.event_id) > 0 then array_agg(e.event_id order by e.ordinal) end,
      case when count(e.idempotency_key) > 0 then array_agg(e.idempotency_key order by e.ordinal) end,
      array_agg(e.correlation_id order by e.ordinal), array_agg(e.causation_id order by e.ordinal),
      array_agg(e.ordering_key order by e.ordinal), array_agg(e.metadata order by e.ordinal), array_agg(e.available_at order by e.ordinal),
      array_agg(e.expires_at order by e.ordinal))
    from rows from (
      jsonb_to_recordset(new_events) as (
        "tenantId" text, type text, source text, subject text, "schemaVersion" smallint,
        "eventId" text, "idempotencyKey" text, "correlationId" text, "causationId" uuid, "orderingKey" text,
        metadata jsonb, "availableAt" timestamptz, "expiresAt" timestamptz)
    ) with ordinality as e (
      tenant_id, type, source, subject, schema_version, event_id, idempotency_key,
      correlation_id, causation_id, ordering_key, metadata, available_at, expires_at, ordinal)
    having count(*) > 0
  ), ',') with ordinality as r (reply, ordinal);
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- The identity of the transaction in which this statement runs: its backend and its start. With a `proof`, which is the
-- identity that an earlier statement returned, it raises an error if the two differ.
-- It also raises an error under `session_replication_role = replica`, because the trigger of the log does not fire then, and
-- what is published would never be delivered. A restore inserts into the tables and calls none of these functions.
create function bus.name_transaction(proof text) returns text language plpgsql as $body$
declare
  current_proof text := pg_backend_pid()::text || '/' || (extract(epoch from transaction_timestamp()) * 1000000)::bigint::text;
begin
  if proof <> current_proof then
    raise exception 'not in the transaction that this handle stands for' using errcode = 'BUS01';
  end if;
  if current_setting('session_replication_role') = 'replica' then
    raise exception 'session_replication_role is replica' using errcode = 'BUS03';
  end if;
  return current_proof;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- bus.store_events, but only inside a transaction block, and only inside the one that `proof` names. Without a proof it
-- publishes only if the transaction has written before, because a statement that is its own transaction has no transaction id
-- when it begins. Otherwise it writes nothing and returns the identity, and a second call shows with it that the same
-- transaction is still open. A handle that is not a transaction, or whose connection was replaced, cannot show that.
-- Returns the identity and, if it has published, a blank and the result of bus.store_events. Without events it only asks.
-- Locks and repeating: as bus.store_events.
create function bus.publish_in_transaction(
  proof text, payloads text default null, tenant_ids text[] default null, types text[] default null, sources text[] default null,
  subjects text[] default null, schema_versions smallint[] default null,
  event_ids text[] default null, idempotency_keys text[] default null,
  correlation_ids text[] default null, causation_ids uuid[] default null,
  ordering_keys text[] default null, metadata jsonb[] default null, available_ats timestamptz[] default null,
  expires_ats timestamptz[] default null
) returns text language plpgsql as $body$
declare
  current_proof text := bus.name_transaction(proof);
begin
  if payloads is null or (proof is null and pg_current_xact_id_if_assigned() is null) then
    return current_proof;
  end if;
  return current_proof || ' ' || bus.store_events(
    payloads, tenant_ids, types, sources, subjects, schema_versions, event_ids, idempotency_keys,
    correlation_ids, causation_ids, ordering_keys, metadata, available_ats, expires_ats);
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- Functions: cancelling.

-- Cancels a scheduled event: removes its outbox row and records the cancellation, in the caller's transaction. Returns false,
-- and writes nothing, if the event is not scheduled any more: it was delivered or cancelled, was never scheduled, belongs to
-- another tenant, or does not exist.
--
-- A role that bus.source_rules restrict cancels only what it may publish. Roles that the policies of the log do not apply to
-- (its owner, roles with bypassrls) are not restricted here either.
-- Locks: the outbox row. The lock decides between this and the relay that makes the row due: the second one finds it changed.
-- The relay skips a row that is locked.
-- Repeating: returns false and writes nothing.
create function bus.cancel(id uuid, tenant_id text default null) returns boolean language plpgsql security definer as $body$
#variable_conflict use_variable
declare
  removed_tenant_id text;
  -- Not current_user, which is the owner inside this function.
  publisher name := case current_setting('role') when 'none' then session_user else current_setting('role')::name end;
begin
  if not bus.is_unrestricted_publisher(publisher)
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
--> statement-breakpoint

-- bus.cancel, but only inside the transaction that `proof` names: see bus.publish_in_transaction. Returns the identity and, if
-- it got as far, a blank and `true` or `false`.
create function bus.cancel_in_transaction(proof text, id uuid, tenant_id text default null) returns text language plpgsql as $body$
declare
  current_proof text := bus.name_transaction(proof);
begin
  if proof is null and pg_current_xact_id_if_assigned() is null then
    return current_proof;
  end if;
  return current_proof || ' ' || bus.cancel(id, tenant_id)::text;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- Functions: reading payloads.

-- The events, out of some, whose payload matches a predicate. An event that the predicate cannot judge does not match. The
-- operator returns null for most errors, but raises some, such as for a date that is compared with a time that has a zone:
-- then each payload is judged by itself, so that one of them does not stop the relay for all. Only reads.
-- Planned anew for the ids of each call: a generic plan would lock every partition of the log, and wait for any that is locked.
create function bus.matching_events(event_ids uuid[], predicate jsonpath) returns uuid[] language plpgsql stable as $body$
declare
  fulfilling uuid[];
  event record;
begin
  return array(select e.id from bus.events e where e.id = any (event_ids) and e.payload @@ predicate);
exception when data_exception or feature_not_supported or undefined_object or program_limit_exceeded then
  for event in select e.id, e.payload from bus.events e where e.id = any (event_ids) loop
    begin
      if event.payload @@ predicate then
        fulfilling := fulfilling || event.id;
      end if;
    exception when data_exception or feature_not_supported or undefined_object or program_limit_exceeded then
      -- Not fulfilled.
      null;
    end;
  end loop;
  return coalesce(fulfilling, '{}');
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off
  set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Triggers.

create trigger dispatch_inserted_events after insert on bus.events
referencing new table as inserted
for each statement execute function bus.dispatch_inserted_events();
--> statement-breakpoint

-- Privileges. drizzle/roles.sql grants the rest to roles, by name.

-- To fire the trigger of the log takes no privilege. To put its function on another table would, and would write to the outbox.
revoke execute on function
  bus.check_event_id(uuid, timestamptz), bus.dispatch_inserted_events(), bus.confirm_stored(uuid[], text[], text[]),
  bus.claim_event_keys(uuid[], text[], text[], text[]), bus.store_events, bus.publish(jsonb), bus.name_transaction(text),
  bus.publish_in_transaction, bus.cancel(uuid, text), bus.cancel_in_transaction(text, uuid, text),
  bus.matching_events(uuid[], jsonpath)
from public;
--> statement-breakpoint
-- These read and write nothing.
grant execute on function bus.uuid_v7(), bus.uuid_v7_floor(timestamptz), bus.boss_schema(), bus.stored_hash(uuid, text, text) to public;
