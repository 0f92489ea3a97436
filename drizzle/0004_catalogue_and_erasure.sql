-- The stored catalogue, and the erasure of what the log holds about a subject.

-- Tables. src/operations/schema.ts describes their columns.

create table bus.catalogue (
  type text not null,
  version smallint not null,
  service text not null,
  schema jsonb,
  schema_origin text not null,
  sources text[],
  upcasts_from smallint,
  redact text[],
  first_seen_at timestamp (6) with time zone default clock_timestamp() not null,
  changed_at timestamp (6) with time zone default clock_timestamp() not null,
  last_seen_at timestamp (6) with time zone default clock_timestamp() not null,
  constraint catalogue_type_version_service_pk primary key (type, version, service)
);
--> statement-breakpoint

create table bus.erasures (
  id uuid primary key default bus.uuid_v7() not null,
  tenant_id text not null,
  subject text not null,
  erased_by text not null,
  reason text,
  event_count bigint default 0 not null,
  failure_count bigint default 0 not null,
  started_at timestamp (6) with time zone default clock_timestamp() not null,
  finished_at timestamp (6) with time zone
);
--> statement-breakpoint

-- Indexes.

create index erasures_tenant_id_idx on bus.erasures (tenant_id, id);
--> statement-breakpoint

-- Functions.

-- A record of failed attempts, as pg-boss keeps it, without the messages of the errors, which may quote the event: number, time, name
-- and code stay. Any other value is returned as it is.
create function bus.scrub_failures(record jsonb) returns jsonb language sql immutable strict parallel safe
return case when jsonb_typeof(record -> 'failures') = 'array' then jsonb_set(record, '{failures}', (
  select coalesce(jsonb_agg((f.failure - 'stack') || '{"message": "erased"}' order by f.ordinal), '[]')
  from jsonb_array_elements(record -> 'failures') with ordinality as f (failure, ordinal)
)) else record end;
--> statement-breakpoint

-- Erases some events of the tenant and subject that an erasure names, unless they are erased already, and counts them. Runs as the owner
-- of the log, which no other role may update: it can do nothing else.
-- Locks: the rows of the log, in the order of their ids, so two calls wait for each other and never deadlock; then the row of the
-- erasure.
-- Repeating: erased events are skipped, and not counted again.
create function bus.erase_events(erasure_id uuid, event_ids uuid[]) returns bigint language plpgsql security definer as $body$
declare
  erased_count bigint;
begin
  with found as (
    select e.id from bus.events e
    join bus.erasures r on r.tenant_id = e.tenant_id and r.subject = e.subject
    where r.id = erasure_id and r.finished_at is null and e.id = any (event_ids) and e.erased_at is null
    order by e.id for update of e
  )
  update bus.events e set payload = 'null', metadata = '{}', erased_at = clock_timestamp()
  from found f where e.id = f.id and e.id = any (event_ids);
  get diagnostics erased_count = row_count;
  update bus.erasures r set event_count = r.event_count + erased_count where r.id = erasure_id;
  return erased_count;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- Row security.

alter table bus.erasures enable row level security;
--> statement-breakpoint
create policy tenant_reads on bus.erasures for select to public using (tenant_id = (select bus.current_tenant()));
--> statement-breakpoint

-- Privileges. drizzle/roles.sql grants the rest to roles, by name.

revoke execute on function bus.scrub_failures(jsonb), bus.erase_events(uuid, uuid[]) from public;
