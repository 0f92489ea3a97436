-- The tenant that is set for the transaction, or none: `set local bus.tenant_id = 'acme'`.
create function bus.current_tenant() returns text language sql stable parallel safe
return nullif(current_setting('bus.tenant_id', true), '');
--> statement-breakpoint
CREATE TABLE "bus"."source_rules" (
	"role" text NOT NULL,
	"source" text NOT NULL,
	"type" text DEFAULT '**' NOT NULL,
	CONSTRAINT "source_rules_role_source_type_pk" PRIMARY KEY("role","source","type"),
	CONSTRAINT "source_rules_type_check" CHECK (type ~ '^([^*]+|([^*]+\.)?\*\*)$')
);
--> statement-breakpoint

-- Whether a rule of bus.source_rules is one for a role: for itself, for a role it is a member of, or for the role that has
-- logged in, which `set role` does not change.
create function bus.binds(rule_role text, publisher name) returns boolean language plpgsql stable as $body$
declare
  role_id oid := (select r.oid from pg_roles r where r.rolname = rule_role);
begin
  return role_id is not null and (
    pg_has_role(publisher, role_id, 'member')
    or (pg_has_role(session_user, role_id, 'member') and not (select r.rolsuper from pg_roles r where r.rolname = session_user)));
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- Whether no rule binds a role. Asked once a statement.
create function bus.publishes_freely(publisher name) returns boolean language plpgsql stable security definer as $body$
begin
  return not exists (select from bus.source_rules r where bus.binds(r.role, publisher));
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- Whether a rule lets a role that is bound by some publish such an event.
create function bus.may_publish(publisher name, event_source text, event_type text) returns boolean language plpgsql stable security definer as $body$
begin
  return exists (
    select from bus.source_rules r
    where r.source = event_source
      and (r.type = event_type or (right(r.type, 2) = '**' and starts_with(event_type, left(r.type, -2))))
      and bus.binds(r.role, publisher));
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint
ALTER TABLE "bus"."cancellations" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "bus"."deliveries" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "bus"."event_keys" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "bus"."events" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "bus"."ordered_events" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "bus"."ordered_keys" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "bus"."outbox" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE POLICY "tenant_reads" ON "bus"."cancellations" AS PERMISSIVE FOR SELECT TO public USING (tenant_id = (select bus.current_tenant()));--> statement-breakpoint
CREATE POLICY "tenant_reads" ON "bus"."deliveries" AS PERMISSIVE FOR SELECT TO public USING (exists (select from bus.events e where e.id = deliveries.event_id));--> statement-breakpoint
CREATE POLICY "tenant_reads" ON "bus"."event_keys" AS PERMISSIVE FOR SELECT TO public USING (tenant_id = (select bus.current_tenant()));--> statement-breakpoint
CREATE POLICY "tenant_reads" ON "bus"."events" AS PERMISSIVE FOR SELECT TO public USING (tenant_id = (select bus.current_tenant()));--> statement-breakpoint
CREATE POLICY "publishes" ON "bus"."events" AS PERMISSIVE FOR INSERT TO public WITH CHECK ((select bus.publishes_freely(current_user)) or bus.may_publish(current_user, source, type));--> statement-breakpoint
CREATE POLICY "tenant_reads" ON "bus"."ordered_events" AS PERMISSIVE FOR SELECT TO public USING (exists (select from bus.ordered_keys k where k.id = ordered_events.key_id));--> statement-breakpoint
CREATE POLICY "tenant_reads" ON "bus"."ordered_keys" AS PERMISSIVE FOR SELECT TO public USING (tenant_id = (select bus.current_tenant()));--> statement-breakpoint
CREATE POLICY "tenant_reads" ON "bus"."outbox" AS PERMISSIVE FOR SELECT TO public USING (tenant_id = (select bus.current_tenant()));
--> statement-breakpoint

-- The id is made before the insert: a role that may insert and read nothing cannot have it returned.
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
begin
  if cardinality(tenant_ids) = 1 and event_ids is null and idempotency_keys is null then
    new_id := bus.uuid_v7();
    insert into bus.events (
      id, tenant_id, type, source, subject, schema_version, payload,
      correlation_id, causation_id, ordering_key, metadata, available_at, expires_at)
    values (
      new_id, tenant_ids[1], types[1], sources[1], subjects[1], coalesce(schema_versions[1], 1), nullif(payloads, '')::jsonb,
      correlation_ids[1], causation_ids[1], ordering_keys[1], coalesce(metadata[1], '{}'), available_ats[1],
      expires_ats[1]);
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

-- What publishing and cancelling need beyond inserting into the log. The insert itself stays the caller's, so that the
-- policy of the log judges the caller.
alter function bus.claim_event_keys(uuid[], text[], text[], text[]) security definer;
--> statement-breakpoint
alter function bus.cancel(uuid, text) security definer;
--> statement-breakpoint

-- As before, but as the owner of the log, so that the role of a worker may do it, and each partition is closed to
-- everybody else: a policy of its own it has none.
create or replace function bus.create_partitions(months_ahead int default 3) returns int language plpgsql security definer as $body$
declare
  parent text;
  key_column text;
  partition_name text;
  month_start timestamptz;
  lower_bound uuid;
  upper_bound uuid;
  created int := 0;
begin
  if months_ahead > 24 then
    raise exception 'Expected months_ahead to be at most 24, got %', months_ahead using errcode = '22023';
  end if;
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
        -- Whatever default privileges there are: through the log and the ledger, or not at all.
        execute format('alter table bus.%I enable row level security', partition_name);
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
do $body$
declare
  partition_name regclass;
begin
  for partition_name in
    select inhrelid::regclass from pg_catalog.pg_inherits where inhparent in ('bus.events'::regclass, 'bus.deliveries'::regclass)
  loop
    execute pg_catalog.format('alter table %s enable row level security', partition_name);
  end loop;
end
$body$;
--> statement-breakpoint

-- What anybody may call who may use the schema: nothing of these reads or writes. All else is granted by name: drizzle/roles.sql.
revoke execute on all functions in schema bus from public;
--> statement-breakpoint
grant execute on function
  bus.uuid_v7(), bus.uuid_v7_floor(timestamptz), bus.current_tenant(), bus.publishes_freely(name), bus.may_publish(name, text, text)
to public;
