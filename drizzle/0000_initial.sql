create schema if not exists bus;
--> statement-breakpoint

-- A time-ordered uuid (RFC 9562, version 7) by the database's clock, ascending within a session.
-- PostgreSQL 18 has one; below, milliseconds and a 12-bit fraction of one come from the clock, and the session
-- remembers the last microsecond given so that two calls never tie.
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

-- The lowest uuid v7 of a moment's millisecond: the bounds of a partition. Immutable, because the epoch of a
-- timestamptz depends on no setting.
create function bus.uuid_v7_floor(moment timestamptz) returns uuid language sql immutable parallel safe
return (lpad(to_hex(greatest(floor(extract(epoch from moment) * 1000), 0)::bigint), 12, '0') || '00000000000000000000')::uuid;
--> statement-breakpoint
CREATE SEQUENCE "bus"."subscription_revision" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1;--> statement-breakpoint
CREATE TABLE "bus"."cancellations" (
	"event_id" uuid PRIMARY KEY NOT NULL,
	"tenant_id" text NOT NULL,
	"cancelled_at" timestamp (6) with time zone DEFAULT clock_timestamp() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "bus"."deliveries" (
	"subscription_id" integer NOT NULL,
	"event_id" uuid NOT NULL,
	"attempts" smallint NOT NULL,
	"expired" boolean DEFAULT false NOT NULL,
	"duration_ms" real NOT NULL,
	"delivered_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "deliveries_subscription_id_event_id_pk" PRIMARY KEY("subscription_id","event_id")
) PARTITION BY RANGE ("event_id");
--> statement-breakpoint
CREATE TABLE "bus"."event_keys" (
	"tenant_id" text NOT NULL,
	"kind" text NOT NULL,
	"key" text NOT NULL,
	"event_id" uuid NOT NULL,
	"created_at" timestamp (6) with time zone DEFAULT clock_timestamp() NOT NULL,
	CONSTRAINT "event_keys_tenant_id_kind_key_pk" PRIMARY KEY("tenant_id","kind","key")
);
--> statement-breakpoint
CREATE TABLE "bus"."events" (
	"id" uuid PRIMARY KEY DEFAULT bus.uuid_v7() NOT NULL,
	"tenant_id" text NOT NULL,
	"type" text NOT NULL,
	"source" text NOT NULL,
	"subject" text,
	"schema_version" smallint DEFAULT 1 NOT NULL,
	"payload" jsonb NOT NULL,
	"event_id" text,
	"idempotency_key" text,
	"correlation_id" text,
	"causation_id" uuid,
	"ordering_key" text,
	"metadata" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"available_at" timestamp (6) with time zone,
	"expires_at" timestamp (6) with time zone,
	"created_at" timestamp (6) with time zone DEFAULT clock_timestamp() NOT NULL
) PARTITION BY RANGE ("id");
--> statement-breakpoint
CREATE TABLE "bus"."ordered_events" (
	"key_id" bigint NOT NULL,
	"seq" bigint GENERATED ALWAYS AS IDENTITY (sequence name "bus"."ordered_events_seq_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"event_id" uuid NOT NULL,
	"payload_bytes" integer NOT NULL,
	CONSTRAINT "ordered_events_key_id_seq_pk" PRIMARY KEY("key_id","seq")
);
--> statement-breakpoint
CREATE TABLE "bus"."ordered_keys" (
	"id" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "bus"."ordered_keys_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"subscription_id" integer NOT NULL,
	"key_hash" uuid NOT NULL,
	"tenant_id" text NOT NULL,
	"ordering_key" text NOT NULL,
	"state" text DEFAULT 'flowing' NOT NULL,
	"job_id" uuid,
	"done_seq" bigint DEFAULT 0 NOT NULL,
	"singly_through_seq" bigint DEFAULT 0 NOT NULL,
	"failed_event_id" uuid,
	"attempts" smallint,
	"failures" jsonb,
	"failed_at" timestamp (6) with time zone,
	CONSTRAINT "ordered_keys_key_unique" UNIQUE("subscription_id","key_hash")
);
--> statement-breakpoint
CREATE TABLE "bus"."outbox" (
	"position" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "bus"."outbox_position_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"event_id" uuid NOT NULL,
	"tenant_id" text NOT NULL,
	"type" text NOT NULL,
	"payload_bytes" integer,
	"ordering_key" text,
	"available_at" timestamp (6) with time zone
);
--> statement-breakpoint
CREATE TABLE "bus"."subscriptions" (
	"id" integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "bus"."subscriptions_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 2147483647 START WITH 1 CACHE 1),
	"name" text NOT NULL,
	"service" text NOT NULL,
	"patterns" text[] NOT NULL,
	"where" text,
	"options" jsonb NOT NULL,
	"revision" bigint DEFAULT nextval('bus.subscription_revision') NOT NULL,
	"start_position" uuid DEFAULT bus.uuid_v7() NOT NULL,
	"paused_at" timestamp (6) with time zone,
	"created_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "subscriptions_name_unique" UNIQUE("name")
);
--> statement-breakpoint
CREATE INDEX "event_keys_created_idx" ON "bus"."event_keys" USING brin ("created_at");--> statement-breakpoint
CREATE INDEX "events_tenant_id_idx" ON "bus"."events" USING btree ("tenant_id","id");--> statement-breakpoint
CREATE INDEX "events_type_idx" ON "bus"."events" USING btree ("type","id");--> statement-breakpoint
CREATE INDEX "events_correlation_idx" ON "bus"."events" USING btree ("tenant_id","correlation_id") WHERE "bus"."events"."correlation_id" is not null;--> statement-breakpoint
CREATE INDEX "events_causation_idx" ON "bus"."events" USING btree ("causation_id") WHERE "bus"."events"."causation_id" is not null;--> statement-breakpoint
CREATE INDEX "ordered_keys_failed_idx" ON "bus"."ordered_keys" USING btree ("failed_at") WHERE "bus"."ordered_keys"."failed_at" is not null;--> statement-breakpoint
CREATE INDEX "outbox_scheduled_idx" ON "bus"."outbox" USING btree ("available_at","event_id") WHERE "bus"."outbox"."available_at" is not null;
--> statement-breakpoint

alter sequence bus.subscription_revision owned by bus.subscriptions.revision;
--> statement-breakpoint

-- Rows of the outbox live for milliseconds: vacuum by count, not by share, and without pausing.
alter table bus.outbox set (
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000,
  autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
  autovacuum_vacuum_cost_delay = 0
);
--> statement-breakpoint

create table bus.events_default partition of bus.events default;
--> statement-breakpoint
create table bus.deliveries_default partition of bus.deliveries default;
--> statement-breakpoint

-- Makes sure the log and the ledger have a partition for last month, this month and some months ahead (UTC), and
-- moves into it what fell into the default partition meanwhile. Gives the number of partitions created.
-- Attaching takes SHARE UPDATE EXCLUSIVE on the parent, so publishers are not held up. It takes ACCESS EXCLUSIVE on
-- the default partition, which every reader of the whole log locks (the relay, pg_dump): while it waits for one,
-- all others wait behind it. So it waits for half a second, and leaves what it could not do to the next call: there
-- are months of it. Serialised by an advisory lock; who finds it taken leaves the work to its holder.
create function bus.create_partitions(months_ahead int default 3) returns int language plpgsql as $body$
declare
  parent text;
  key_column text;
  partition_name text;
  month_start timestamptz;
  lower_bound uuid;
  upper_bound uuid;
  created int := 0;
begin
  if not pg_try_advisory_xact_lock(1651864320, 5) then
    return 0;
  end if;
  for month_start in
    select generate_series(
      date_trunc('month', now() at time zone 'utc') - interval '1 month',
      date_trunc('month', now() at time zone 'utc') + make_interval(months => months_ahead),
      interval '1 month'
    ) at time zone 'utc'
  loop
    lower_bound := bus.uuid_v7_floor(month_start);
    upper_bound := bus.uuid_v7_floor(((month_start at time zone 'utc') + interval '1 month') at time zone 'utc');
    foreach parent in array array['events', 'deliveries'] loop
      key_column := case parent when 'events' then 'id' else 'event_id' end;
      partition_name := parent || to_char(month_start at time zone 'utc', '_YYYY_MM');
      continue when to_regclass('bus.' || partition_name) is not null;
      begin
        -- Before the rows are moved: none may come after them.
        execute format('lock table bus.%I in access exclusive mode', parent || '_default');
        execute format('create table bus.%I (like bus.%I including all)', partition_name, parent);
        execute format(
          'with moved as (delete from bus.%1$I where %2$I >= %3$L and %2$I < %4$L returning *) insert into bus.%5$I select * from moved',
          parent || '_default', key_column, lower_bound, upper_bound, partition_name);
        execute format('alter table bus.%I attach partition bus.%I for values from (%L) to (%L)',
          parent, partition_name, lower_bound, upper_bound);
      exception when lock_not_available or deadlock_detected then
        raise warning 'bus.% could not be created now: bus.% is in use', partition_name, parent;
        return created;
      end;
      created := created + 1;
    end loop;
  end loop;
  return created;
end
$body$ set search_path = pg_catalog, pg_temp set lock_timeout = '500ms';
--> statement-breakpoint
select bus.create_partitions();
--> statement-breakpoint

-- Runs once for each statement that inserts into the log, whoever sent it: writes the outbox rows and rings the
-- doorbell. A relay that is awake is found by the shared lock (1651864320, 1), and then nothing is notified:
-- NOTIFY takes a database-wide lock at commit. Held until the end of the transaction, so a relay that wants to
-- sleep (it takes the lock exclusively) has to wait for every publisher that saw it awake.
-- What a claim needs to know stands in the row, so that it need not look into the log. A scheduled event gets a position
-- beyond 2^62, an event with an ordering key one beyond 2^61, because it is claimed in another way: claims read their part
-- of the primary key, so a million scheduled events cost a claim nothing, and no other index is needed.
create function bus.dispatch_inserted_events() returns trigger language plpgsql security definer as $body$
begin
  insert into bus.outbox (position, event_id, tenant_id, type, payload_bytes, ordering_key, available_at)
  overriding system value
  select
    nextval('bus.outbox_position_seq') + case
      when e.scheduled then 4611686018427387904
      when e.ordering_key is not null then 2305843009213693952
      else 0 end,
    e.id, e.tenant_id, e.type,
    -- Compressed or stored elsewhere: the relay measures it, not the publisher.
    case when pg_column_size(e.payload) <= 1500 then pg_column_size(e.payload) end,
    e.ordering_key,
    -- Before PostgreSQL 17 infinity cannot be subtracted from, and the relay does.
    case when e.scheduled then least(e.available_at, '9999-12-31 00:00:00+00') end
  -- Asked once: a row whose position says scheduled and whose time says not would never be claimed.
  from (select i.*, coalesce(i.available_at > clock_timestamp(), false) as scheduled from inserted i) e;
  if found and not pg_try_advisory_xact_lock_shared(1651864320, 1) then
    perform pg_notify('bus_doorbell', '');
  end if;
  return null;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint
-- Firing it takes no privilege; putting it on a table of one's own would, and would write to the outbox at will.
revoke execute on function bus.dispatch_inserted_events() from public;
--> statement-breakpoint
create trigger dispatch_inserted_events after insert on bus.events
referencing new table as inserted
for each statement execute function bus.dispatch_inserted_events();
--> statement-breakpoint

-- Claims the business ids and idempotency keys of some events, given as columns. Gives, for each, the id of the first
-- event with one of its keys: its own where it is new. Keys are inserted in one order everywhere, so two calls with the
-- same keys wait for each other but never deadlock.
-- A session keeps its plans, also one made while the table was small: each key is looked up by itself in the
-- primary key, and the settings see to it that no plan does otherwise.
create function bus.claim_event_keys(ids uuid[], tenant_ids text[], event_ids text[], idempotency_keys text[]) returns uuid[] language plpgsql as $body$
declare
  first_ids uuid[];
  resolved_ids uuid[];
begin
  insert into bus.event_keys (tenant_id, kind, key, event_id)
  select e.tenant_id, k.kind, k.key, e.id
  from unnest(tenant_ids, event_ids, idempotency_keys, ids)
    with ordinality as e (tenant_id, event_id, idempotency_key, id, ordinal)
  cross join lateral (values ('event_id', e.event_id), ('idempotency_key', e.idempotency_key)) as k (kind, key)
  where k.key is not null
  order by e.tenant_id, k.kind, k.key, e.ordinal
  on conflict do nothing;
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
    return ids;
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

-- Stores events given as columns, in order: the payloads as one JSON text a line, everything else as an array, or left
-- out where no event has it. One parse of each payload, and no JSON around them: that is what makes it faster than an
-- array of objects. Gives the ids, separated by commas, each duplicate's followed by `*`: then it is the first event's.
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
begin
  if cardinality(tenant_ids) = 1 and event_ids is null and idempotency_keys is null then
    insert into bus.events (
      tenant_id, type, source, subject, schema_version, payload,
      correlation_id, causation_id, ordering_key, metadata, available_at, expires_at)
    values (
      tenant_ids[1], types[1], sources[1], subjects[1], coalesce(schema_versions[1], 1), nullif(payloads, '')::jsonb,
      correlation_ids[1], causation_ids[1], ordering_keys[1], coalesce(metadata[1], '{}'), available_ats[1],
      expires_ats[1])
    returning id into new_id;
    return new_id::text;
  end if;
  ids := array(select bus.uuid_v7() from generate_series(1, cardinality(tenant_ids)));
  first_ids := ids;
  if event_ids is not null or idempotency_keys is not null then
    first_ids := bus.claim_event_keys(ids, tenant_ids, event_ids, idempotency_keys);
  end if;
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
  if first_ids = ids then
    return array_to_string(ids, ',');
  end if;
  return (
    select string_agg(e.first_id::text || case when e.first_id <> e.id then '*' else '' end, ',' order by e.ordinal)
    from unnest(ids, first_ids) with ordinality as e (id, first_id, ordinal));
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- Publishes an array of events, each {tenantId, type, source, payload, …}, in the caller's transaction: one row
-- for each, in order, with the id of the stored event and whether it was there before. For callers in any
-- language; unlike a plain insert into bus.events it also refuses duplicates.
create function bus.publish(new_events jsonb) returns table (ordinal bigint, id uuid, duplicate boolean) language plpgsql as $body$
#variable_conflict use_column
begin
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

-- The name of the transaction that this statement runs in: its backend and its start. With a proof, which is the name
-- that an earlier statement was given, it raises where the two differ.
create function bus.name_transaction(proof text) returns text language plpgsql as $body$
declare
  current_proof text := pg_backend_pid()::text || '/' || (extract(epoch from transaction_timestamp()) * 1000000)::bigint::text;
begin
  if proof <> current_proof then
    raise exception 'not in the transaction that this handle stands for' using errcode = 'BUS01';
  end if;
  return current_proof;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- bus.store_events, but only inside a transaction block, and only inside the one that `proof` names. Without a proof it
-- publishes where the transaction has written before, because a statement that is its own transaction has no transaction
-- id yet when it begins. Otherwise it writes nothing and returns the name, for a second call to show that the same
-- transaction is still open. A handle that is no transaction, or whose connection died and was replaced underneath,
-- cannot show that.
-- Gives the name, and after a blank, where it has published, what bus.store_events gives. Without events it only asks.
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

-- Takes a scheduled event back before it fires: removes its outbox row, and writes down that it was cancelled, in the
-- caller's transaction. False, and nothing is written, when it is not waiting for its time any more: it has fired, was
-- cancelled before, was never scheduled, is another tenant's, or does not exist.
-- The lock on the outbox row decides between this and the relay that makes the row ready: the one that comes second
-- finds it changed. The relay passes over a row that is being cancelled, so neither waits for the other for long.
create function bus.cancel(id uuid, tenant_id text default null) returns boolean language plpgsql as $body$
#variable_conflict use_variable
declare
  removed_tenant_id text;
begin
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
  return true;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off;
--> statement-breakpoint

-- bus.cancel, but only inside the transaction that `proof` names: see bus.publish_in_transaction. Gives the name, and
-- after a blank, where it went through, `true` or `false`.
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

-- Rows of these, too, live for milliseconds while subscribers keep up.
alter table bus.ordered_keys set (
  fillfactor = 70,
  autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_vacuum_insert_threshold = 50000,
  autovacuum_vacuum_cost_delay = 0
);
--> statement-breakpoint
alter table bus.ordered_events set (
  autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_vacuum_insert_threshold = 50000,
  autovacuum_vacuum_cost_delay = 0
);
--> statement-breakpoint

-- Order per key. A key of an ordered subscription has one row in bus.ordered_keys while it has events to deliver; the
-- events stand in bus.ordered_events, in the order of delivery, until they are done. At most one pg-boss job at a time
-- stands for a key: it carries the first events. Who gives a key events, takes events from it or changes its job holds
-- its row, and reads its events in a later statement, so in a later snapshot: nothing is overlooked. Rows are locked in
-- the order of their hashes, so there are no deadlocks. A session keeps its plans, also one made while the tables were
-- empty: the settings see to it that every key is looked up by itself.

-- The length of the tenant is part of it, so no two pairs read alike. Stable, so that it can be inlined.
create function bus.ordering_key_hash(tenant_id text, ordering_key text) returns uuid language sql stable parallel safe
return substr(encode(sha256(convert_to(length(tenant_id) || ':' || tenant_id || ordering_key, 'UTF8')), 'hex'), 1, 32)::uuid;
--> statement-breakpoint

-- Gives keys their next job: as many of their first events as fit into one. Keys with no event left are gone. The
-- caller holds the rows, and inserts a pg-boss job for each row returned.
create function bus.begin_ordered_keys(key_ids bigint[], batch_size int, batch_bytes int)
returns table (key_id bigint, job_id uuid, event_ids uuid[]) language plpgsql as $body$
#variable_conflict use_column
begin
  return query
  with heads as materialized (
    select k.id, h.event_ids
    from unnest(key_ids) as u (id)
    join bus.ordered_keys k on k.id = u.id
    cross join lateral (
      select array_agg(f.event_id order by f.seq) as event_ids
      from (
        select w.event_id, w.seq, sum(w.payload_bytes) over (order by w.seq) as bytes, row_number() over (order by w.seq) as place
        from (
          select e.event_id, e.seq, e.payload_bytes from bus.ordered_events e
          where e.key_id = k.id and e.seq > k.done_seq
          order by e.seq
          limit case when k.done_seq < k.singly_through_seq then 1 else batch_size end
        ) w
      ) f
      where f.place = 1 or f.bytes <= batch_bytes
    ) h
  ), ended as (
    delete from bus.ordered_keys k using heads h where k.id = h.id and h.event_ids is null
  )
  update bus.ordered_keys k
  set state = 'flowing', job_id = bus.uuid_v7(), failed_event_id = null, attempts = null, failures = null, failed_at = null
  from heads h where k.id = h.id and h.event_ids is not null
  returning k.id, k.job_id, h.event_ids;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off;
--> statement-breakpoint

-- Puts events at the end of their keys, in the order given, and gives idle keys a job. Blocked and parked keys keep
-- what they are given.
create function bus.enqueue_ordered(
  for_subscription int, batch_size int, batch_bytes int,
  tenant_ids text[], ordering_keys text[], new_event_ids uuid[], payload_sizes int[]
) returns table (key_id bigint, job_id uuid, event_ids uuid[]) language plpgsql as $body$
#variable_conflict use_column
declare
  hashes uuid[] := array(
    select bus.ordering_key_hash(e.tenant_id, e.ordering_key)
    from unnest(tenant_ids, ordering_keys) with ordinality as e (tenant_id, ordering_key, ordinal) order by e.ordinal);
begin
  insert into bus.ordered_keys as k (subscription_id, key_hash, tenant_id, ordering_key)
  select distinct on (e.key_hash) for_subscription, e.key_hash, e.tenant_id, e.ordering_key
  from unnest(hashes, tenant_ids, ordering_keys) as e (key_hash, tenant_id, ordering_key)
  order by e.key_hash
  on conflict (subscription_id, key_hash) do update set state = k.state;

  insert into bus.ordered_events (key_id, event_id, payload_bytes)
  select k.id, e.event_id, e.payload_bytes
  from unnest(hashes, new_event_ids, payload_sizes) with ordinality as e (key_hash, event_id, payload_bytes, ordinal)
  join bus.ordered_keys k on k.subscription_id = for_subscription and k.key_hash = e.key_hash
  order by e.ordinal;

  return query
  select b.key_id, b.job_id, b.event_ids
  from bus.begin_ordered_keys(
    array(
      select k.id from (select distinct h.key_hash from unnest(hashes) as h (key_hash)) e
      join bus.ordered_keys k on k.subscription_id = for_subscription and k.key_hash = e.key_hash
      where k.state = 'flowing' and k.job_id is null),
    batch_size, batch_bytes) b;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off;
--> statement-breakpoint

-- Takes the first events of keys away, as many as are done, and gives the keys their next job. Only for a job that the
-- key still stands by, or for the event that a blocked or parked key waits for, wherever it was delivered: a worker
-- that was presumed dead changes nothing.
create function bus.advance_ordered_keys(
  key_ids bigint[], job_ids uuid[], first_event_ids uuid[], done_counts int[], batch_size int, batch_bytes int
) returns table (key_id bigint, job_id uuid, event_ids uuid[]) language plpgsql as $body$
#variable_conflict use_column
declare
  held_ids bigint[];
begin
  held_ids := array(
    select k.id from unnest(key_ids, job_ids, first_event_ids) as s (key_id, job_id, event_id)
    join bus.ordered_keys k on k.id = s.key_id
    where k.job_id = s.job_id or (k.job_id is null and k.failed_event_id = s.event_id)
    order by k.key_hash
    for update of k);

  with done as materialized (
    select k.id, d.seq from unnest(key_ids, done_counts) as s (key_id, done_count)
    join bus.ordered_keys k on k.id = s.key_id
    cross join lateral (
      select e.seq from bus.ordered_events e where e.key_id = k.id and e.seq > k.done_seq order by e.seq limit s.done_count
    ) d
    where k.id = any (held_ids)
  ), removed as (
    delete from bus.ordered_events e using done d where e.key_id = d.id and e.seq = d.seq
  )
  update bus.ordered_keys k set done_seq = d.seq
  from (select done.id, max(done.seq) as seq from done group by done.id) d
  where k.id = d.id;

  return query select b.key_id, b.job_id, b.event_ids from bus.begin_ordered_keys(held_ids, batch_size, batch_bytes) b;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off;
--> statement-breakpoint

-- Takes the first events of keys away, as many as are done, and says what becomes of the next one, which failed: it has a
-- job of its own for a further attempt, or the key waits for a person. `singlyCount`: so many events, from the first one
-- on, are to be delivered one by one. Under the same condition as above; gives the keys for which it was fulfilled.
create function bus.hold_ordered_keys(holds jsonb) returns bigint[] language plpgsql as $body$
declare
  hold record;
  new_done_seq bigint;
  new_singly_seq bigint;
  held_ids bigint[] := '{}';
begin
  for hold in
    select h.*, k.id, k.done_seq
    from jsonb_to_recordset(holds) as h (
      "keyId" bigint, "jobId" uuid, "eventId" uuid, "doneCount" int, "singlyCount" int, state text, "nextJobId" uuid,
      "failedEventId" uuid, attempts smallint, failures jsonb)
    join bus.ordered_keys k on k.id = h."keyId"
    where k.job_id = h."jobId" or (k.job_id is null and k.failed_event_id = h."eventId")
    order by k.key_hash
    for update of k
  loop
    select
      max(e.seq) filter (where e.place <= hold."doneCount"), max(e.seq) filter (where e.place <= hold."singlyCount")
    into new_done_seq, new_singly_seq
    from (
      select w.seq, row_number() over (order by w.seq) as place from bus.ordered_events w
      where w.key_id = hold.id and w.seq > hold.done_seq
      order by w.seq limit greatest(hold."doneCount", hold."singlyCount")
    ) e;
    delete from bus.ordered_events e where e.key_id = hold.id and e.seq > hold.done_seq and e.seq <= new_done_seq;
    update bus.ordered_keys k
    set state = hold.state, job_id = hold."nextJobId",
      done_seq = coalesce(new_done_seq, k.done_seq),
      singly_through_seq = greatest(new_singly_seq, k.singly_through_seq),
      failed_event_id = hold."failedEventId", attempts = hold.attempts, failures = hold.failures,
      failed_at = case when hold.state <> 'flowing' then coalesce(k.failed_at, now()) end
    where k.id = hold.id;
    held_ids := held_ids || hold.id;
  end loop;
  return held_ids;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off;
