-- The ledger: what has become of each event for each subscription, kept so that every question about it is answered by an index.
--
-- * Receipts: an event is done. Of first attempts that settled together they are packed, up to 90 in a row of bus.receipt_batches.
--   All others have a row of their own in bus.receipts, under a unique key: exactly-once, later attempts, expired and erased events.
-- * bus.attempts: each failed attempt, and the one that succeeded after failures.
-- * bus.failing: one row for each event that is retried, dead, blocked or parked, while it is.
-- * bus.rollups: counts and times of each minute, for rates and charts.
--
-- docs/ledger.md says how to query them. See docs/adr/0032-the-ledger.md.
--
-- It replaces what earlier files define: bus.event_deliveries (0001), bus.create_partitions, bus.partition_state and bus.repair_sequences
-- (0002), bus.tenant_deliveries, bus.tenant_dead_letters, bus.tenant_delivery_stats and the policy of the receipts (0003).

-- Tables. src/delivery/ledger/schema.ts describes their columns.

alter table bus.deliveries rename to receipts;
--> statement-breakpoint
alter table bus.receipts rename constraint deliveries_subscription_id_event_id_pk to receipts_subscription_id_event_id_pk;
--> statement-breakpoint
do $body$
declare
  month record;
begin
  for month in
    select c.relname, k.conname from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    join pg_constraint k on k.conrelid = c.oid and k.contype = 'p'
    where i.inhparent = 'bus.receipts'::regclass and c.relname ~ '^deliveries_'
  loop
    execute format('alter table bus.%I rename constraint %I to %I', month.relname, month.conname,
      regexp_replace(month.relname, '^deliveries_', 'receipts_') || '_pkey');
    execute format('alter table bus.%I rename to %I', month.relname, regexp_replace(month.relname, '^deliveries_', 'receipts_'));
  end loop;
  if exists (select from pg_constraint k where k.conrelid = 'bus.receipts_default'::regclass and k.conname = 'deliveries_default_excludes_months') then
    alter table bus.receipts_default rename constraint deliveries_default_excludes_months to receipts_default_excludes_months;
  end if;
end
$body$;
--> statement-breakpoint

-- The receipts of first attempts that settled together: of one subscription, and of events that were published in the same ten
-- seconds, so that a lookup reads few rows. event_id is the lowest of event_ids, last_event_id the highest. A row is shorter than what
-- PostgreSQL would move to a TOAST table.
create table bus.receipt_batches (
  subscription_id integer not null,
  event_id uuid not null,
  last_event_id uuid not null,
  delivered_at timestamp (6) with time zone default now() not null,
  event_ids uuid[] not null,
  durations_ms real[] not null
) partition by range (event_id);
--> statement-breakpoint
create table bus.receipt_batches_default partition of bus.receipt_batches default;
--> statement-breakpoint

create table bus.attempts (
  event_id uuid not null,
  subscription_id integer not null,
  attempt smallint not null,
  ended_at timestamp (6) with time zone not null,
  duration_ms real,
  succeeded boolean not null,
  error_name text,
  error_code text,
  error_message text,
  error_stack text,
  fingerprint text,
  instance_id uuid,
  constraint attempts_event_id_subscription_id_attempt_ended_at_pk primary key (event_id, subscription_id, attempt, ended_at)
) partition by range (event_id);
--> statement-breakpoint
create table bus.attempts_default partition of bus.attempts default;
--> statement-breakpoint

create table bus.failing (
  subscription_id integer not null,
  event_id uuid not null,
  state text not null,
  attempts smallint not null,
  tenant_id text,
  fingerprint text,
  error_name text,
  error_code text,
  job_id uuid not null,
  key_id bigint,
  next_attempt_at timestamp (6) with time zone,
  since timestamp (6) with time zone default now() not null,
  failed_at timestamp (6) with time zone default now() not null,
  constraint failing_subscription_id_event_id_pk primary key (subscription_id, event_id),
  constraint failing_state_check check (state in ('retrying', 'dead', 'blocked', 'parked'))
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
--> statement-breakpoint

create table bus.rollups (
  minute timestamp (6) with time zone not null,
  subscription_id integer not null,
  instance_id uuid not null,
  published integer default 0 not null,
  delivered integer default 0 not null,
  failed integer default 0 not null,
  dead integer default 0 not null,
  expired integer default 0 not null,
  wait_bins integer[] not null,
  run_bins integer[] not null,
  constraint rollups_minute_subscription_id_instance_id_pk primary key (minute, subscription_id, instance_id)
);
--> statement-breakpoint

-- Indexes.

create index receipt_batches_events_idx on bus.receipt_batches (subscription_id, event_id, last_event_id);
--> statement-breakpoint
create index attempts_recent_idx on bus.attempts (subscription_id, ended_at);
--> statement-breakpoint
create index failing_dead_idx on bus.failing (failed_at, event_id) where state <> 'retrying';
--> statement-breakpoint
create index failing_dead_of_subscription_idx on bus.failing (subscription_id, failed_at, event_id) where state <> 'retrying';
--> statement-breakpoint
create index failing_errors_idx on bus.failing (subscription_id, state, fingerprint, failed_at);
--> statement-breakpoint
create index failing_tenant_idx on bus.failing (tenant_id, failed_at);
--> statement-breakpoint
create index failing_due_idx on bus.failing (next_attempt_at) where state = 'retrying';
--> statement-breakpoint

-- Functions: times in ids.

-- The milliseconds since 1970 in a uuid of version 7.
create function bus.uuid_ms(id uuid) returns bigint language sql immutable strict parallel safe
return ('x' || substr(replace(id::text, '-', ''), 1, 12))::bit(48)::bigint;
--> statement-breakpoint

-- The lowest id of the ten seconds that an event was published in: the receipts of a row of bus.receipt_batches are of one such span.
create function bus.receipt_span_floor(event_id uuid) returns uuid language sql immutable strict parallel safe
return (lpad(to_hex(bus.uuid_ms(event_id) / 10000 * 10000), 12, '0') || '00000000000000000000')::uuid;
--> statement-breakpoint

-- Whether a job may hold an event of a millisecond: src/delivery/jobs/job-id.ts makes the ids of jobs of first attempts from the times
-- of their events.
create function bus.job_may_hold(job_id uuid, event_ms bigint) returns boolean language sql immutable strict parallel safe
return substr(job_id::text, 15, 1) = '8' and substr(job_id::text, 20, 1) = 'b'
  and event_ms between bus.uuid_ms(job_id)
    and bus.uuid_ms(job_id) + (('x' || substr(job_id::text, 16, 3))::bit(12)::int + 1) * 4;
--> statement-breakpoint

-- Functions: writing. Workers call them in the transaction that settles a job.

-- Which of some events have a receipt. Only reads, and only the partitions of these events.
create function bus.received_events(for_subscription int, of_events uuid[]) returns setof uuid language plpgsql stable as $body$
declare
  lowest uuid := (select bus.receipt_span_floor(e.id) from unnest(of_events) as e (id) order by e.id limit 1);
  highest uuid := (select e.id from unnest(of_events) as e (id) order by e.id desc limit 1);
begin
  return query
  select r.event_id from bus.receipts r where r.subscription_id = for_subscription and r.event_id = any (of_events)
  union
  select e.id from unnest(of_events) as e (id)
  where exists (
    select from bus.receipt_batches b
    where b.subscription_id = for_subscription and b.event_id >= lowest and b.event_id <= highest
      and b.event_id >= bus.receipt_span_floor(e.id) and b.event_id <= e.id and b.last_event_id >= e.id and e.id = any (b.event_ids));
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Records failed attempts, and that their events are failing: retried, dead, or holding their key.
-- Locks: the rows of bus.failing that it writes, in the order of their events.
-- Repeating: an attempt that is recorded stays as it is, and the row of the event gets the values that it has. A late worker does
-- not bring back an event that is done.
create function bus.record_failures(for_subscription int, failures jsonb, of_instance uuid) returns void language plpgsql as $body$
declare
  queue text := (select 'bus.' || s.name from bus.subscriptions s where s.id = for_subscription);
  -- Those whose tenant the caller does not know. Only their partitions of the log are read.
  unknown uuid[] := array(select f."eventId" from jsonb_to_recordset(failures) as f ("eventId" uuid, "tenantId" text) where f."tenantId" is null);
  retried uuid[] := array(select f."jobId" from jsonb_to_recordset(failures) as f ("jobId" uuid, state text) where f.state = 'retrying');
  tenants jsonb;
  starts jsonb;
begin
  if cardinality(unknown) > 0 then
    execute 'select jsonb_object_agg(e.id, e.tenant_id) from bus.events e where e.id = any ($1)' into tenants using unknown;
  end if;
  -- Of one queue, whose name has to be in the statement: otherwise it locks all of them.
  if cardinality(retried) > 0 then
    execute format('select jsonb_object_agg(b.id, b.start_after) from pgboss.job b where b.name = %L and b.id = any ($1)', queue) into starts using retried;
  end if;
  insert into bus.attempts
    (event_id, subscription_id, attempt, ended_at, duration_ms, succeeded, error_name, error_code, error_message, error_stack, fingerprint, instance_id)
  select f."eventId", for_subscription, least(f.attempt, 32767), f.at, f."durationMs", false, f.name, f.code, f.message, f.stack, f.fingerprint, of_instance
  from jsonb_to_recordset(failures) as f (
    "eventId" uuid, attempt int, at timestamptz, "durationMs" real, name text, code text, message text, stack text, fingerprint text)
  on conflict do nothing;
  insert into bus.failing as known
    (subscription_id, event_id, state, attempts, tenant_id, fingerprint, error_name, error_code, job_id, key_id, next_attempt_at, failed_at)
  select for_subscription, f."eventId", f.state, least(f.attempt, 32767), coalesce(f."tenantId", tenants ->> f."eventId"::text),
    f.fingerprint, f.name, f.code, f."jobId", f."keyId",
    case when f.state = 'retrying' then coalesce((starts ->> f."jobId"::text)::timestamptz, now()) end,
    now()
  from jsonb_to_recordset(failures) as f (
    "eventId" uuid, state text, attempt int, name text, code text, fingerprint text, "jobId" uuid, "keyId" bigint,
    "tenantId" text)
  where not exists (select from bus.receipts r where r.subscription_id = for_subscription and r.event_id = f."eventId")
  order by f."eventId"
  on conflict (subscription_id, event_id) do update set state = excluded.state, attempts = excluded.attempts, fingerprint = excluded.fingerprint,
    error_name = excluded.error_name, error_code = excluded.error_code, job_id = excluded.job_id, key_id = excluded.key_id,
    next_attempt_at = excluded.next_attempt_at, tenant_id = coalesce(excluded.tenant_id, known.tenant_id),
    failed_at = excluded.failed_at;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off;
--> statement-breakpoint

-- Records that events which were failing are done: delivered by the given attempt, or expired or erased (`succeeded` is false).
-- Repeating: an attempt that is recorded stays as it is.
create function bus.record_recoveries(for_subscription int, recoveries jsonb, of_instance uuid) returns void language plpgsql as $body$
begin
  delete from bus.failing f
  using jsonb_to_recordset(recoveries) as r ("eventId" uuid)
  where f.subscription_id = for_subscription and f.event_id = r."eventId";
  insert into bus.attempts (event_id, subscription_id, attempt, ended_at, duration_ms, succeeded, instance_id)
  select r."eventId", for_subscription, least(r.attempt, 32767), now(), r."durationMs", true, of_instance
  from jsonb_to_recordset(recoveries) as r ("eventId" uuid, attempt int, "durationMs" real, succeeded boolean)
  where r.succeeded
  on conflict do nothing;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off;
--> statement-breakpoint

-- Packs receipts of a subscription that have rows of their own, where several are of first attempts and of the same ten seconds: those of
-- earlier versions, and those that came one by one. Looks at no more than so many rows after the given event, and at none of the last ten
-- minutes. Returns the last event that it has looked at, null when there are no more, and the number of receipts that it has packed.
-- Locks: the rows that it packs. Repeating: what is packed is no longer there to be packed.
create function bus.pack_receipts(for_subscription int, after_event uuid, max_count int)
returns table (last_event uuid, packed bigint) language plpgsql as $body$
declare
  through_event uuid := (
    select max(r.event_id::text)::uuid from (
      select r.event_id from bus.receipts r
      where r.subscription_id = for_subscription and r.event_id > after_event
      order by r.event_id limit max_count) r);
begin
  return query
  with candidates as materialized (
    select r.event_id, bus.receipt_span_floor(r.event_id) as span
    from bus.receipts r
    where r.subscription_id = for_subscription and r.event_id > after_event and r.event_id <= through_event
      and r.attempts = 1 and not r.expired and r.erased is null and r.delivered_at < now() - interval '10 minutes'
  ), chosen as (
    select c.event_id from candidates c
    join (select c.span from candidates c group by c.span having count(*) >= 4) g using (span)
  ), taken as (
    delete from bus.receipts r using chosen c where r.subscription_id = for_subscription and r.event_id = c.event_id
    returning r.event_id, r.duration_ms, r.delivered_at
  ), placed as (
    select t.*, bus.receipt_span_floor(t.event_id) as span,
      (row_number() over (partition by bus.receipt_span_floor(t.event_id) order by t.event_id) - 1) / 90 as part
    from taken t
  ), inserted as (
    insert into bus.receipt_batches (subscription_id, event_id, last_event_id, delivered_at, event_ids, durations_ms)
    select for_subscription, (array_agg(p.event_id order by p.event_id))[1], (array_agg(p.event_id order by p.event_id desc))[1],
      max(p.delivered_at), array_agg(p.event_id order by p.event_id), array_agg(p.duration_ms order by p.event_id)
    from placed p group by p.span, p.part
  )
  select through_event, (select count(*) from taken);
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Whether the data of a job, which anybody may have inserted, holds one event.
create function bus.is_single_event(data jsonb) returns boolean language sql immutable parallel safe
return coalesce(case jsonb_typeof(data -> 'eventIds') when 'array' then jsonb_array_length(data -> 'eventIds') = 1
  and data -> 'eventIds' ->> 0 ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' end, false);
--> statement-breakpoint

-- Records failing events of a subscription that only jobs know of, and what these know of their attempts: those of the version before, and
-- of its processes that run beside newer ones during a deployment. At most so many; returns the number of events that it has recorded.
-- Planned anew for the queue of each call: a generic plan would lock all queues.
-- Locks: the jobs, but for those that a worker is settling. Repeating: what is recorded is skipped.
create function bus.record_known_failures(for_subscription int, max_count int) returns bigint language plpgsql as $body$
declare
  recorded bigint := 0;
  queue text := (select 'bus.' || s.name from bus.subscriptions s where s.id = for_subscription);
  job record;
begin
  -- Recorded while a process of the version before was delivering them.
  delete from bus.failing f using bus.receipts r
  where f.subscription_id = for_subscription and r.subscription_id = for_subscription and r.event_id = f.event_id;
  for job in
    select d.is_dead, case when d.is_dead then coalesce(b.source_root_id, b.source_id, b.id) else b.id end as id,
      (b.data ->> 'keyId')::bigint as key_id, (b.data -> 'eventIds' ->> 0)::uuid as event_id,
      case when d.is_dead
        then coalesce((b.source_output ->> 'attempts')::int, coalesce((b.data ->> 'attempts')::int, 0) + coalesce(b.source_retry_count, 0) + 1)
        else coalesce((b.data ->> 'attempts')::int, 0) + b.retry_count + case when b.state = 'retry' then 1 else 0 end end as attempts,
      coalesce(case when d.is_dead then b.source_output else b.output end -> 'failures', b.data -> 'failures') as failures,
      bus.last_failure(case when d.is_dead then b.source_output else b.output end, b.data) as last,
      case when not d.is_dead then b.start_after end as due_at
    from pgboss.job b
    cross join lateral (select b.name = queue || '.dead' as is_dead) d
    where b.name in (queue, queue || '.dead') and bus.is_single_event(b.data)
      and case when d.is_dead then b.state < 'active'
        else b.state < 'completed' and (b.retry_count > 0 or b.state = 'retry' or coalesce((b.data ->> 'attempts')::int, 0) > 0) end
      -- A dead letter may be of the version before, though the attempts before it are not.
      and not exists (
        select from bus.failing f
        where f.subscription_id = for_subscription and f.event_id = (b.data -> 'eventIds' ->> 0)::uuid and (f.state <> 'retrying' or not d.is_dead))
    limit max_count
    -- So that nobody settles a job before its event is recorded, and it is not recorded as failing once it is done.
    for update of b skip locked
  loop
    insert into bus.attempts (event_id, subscription_id, attempt, ended_at, succeeded, error_name, error_code, error_message, error_stack)
    select job.event_id, for_subscription, least((f.failure ->> 'attempt')::int, 32767), (f.failure ->> 'at')::timestamptz, false,
      f.failure ->> 'name', f.failure ->> 'code', f.failure ->> 'message', f.failure ->> 'stack'
    from jsonb_array_elements(case jsonb_typeof(job.failures) when 'array' then job.failures else '[]' end) as f (failure)
    where f.failure ? 'at' and f.failure ? 'attempt'
    on conflict do nothing;
    insert into bus.failing as known
      (subscription_id, event_id, state, attempts, tenant_id, error_name, error_code, job_id, key_id, next_attempt_at)
    values (for_subscription, job.event_id,
      case when job.is_dead then coalesce((
        select k.state from bus.ordered_keys k
        where k.id = job.key_id and k.failed_event_id = job.event_id and k.state in ('blocked', 'parked')), 'dead') else 'retrying' end,
      least(job.attempts, 32767), (select e.tenant_id from bus.events e where e.id = job.event_id), job.last ->> 'name', job.last ->> 'code',
      job.id, job.key_id, job.due_at)
    on conflict (subscription_id, event_id) do update set state = excluded.state, attempts = excluded.attempts, error_name = excluded.error_name,
      error_code = excluded.error_code, job_id = excluded.job_id, key_id = excluded.key_id, next_attempt_at = null, failed_at = excluded.failed_at
    where known.state = 'retrying' and excluded.state <> 'retrying';
    recorded := recorded + 1;
  end loop;
  return recorded;
end
$body$ set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Functions: reading.

-- Whether the current role reads the rows of all tenants.
create function bus.reads_all_tenants() returns boolean language sql stable parallel safe
return not row_security_active('bus.events')
  or exists (select from pg_catalog.pg_roles r where r.rolname in ('bus_worker', 'bus_operator') and pg_has_role(r.oid, 'usage'));
--> statement-breakpoint

-- Whether a pattern of a subscription matches an event type: `*` is one segment, `**` at the end one or more.
create function bus.pattern_matches(pattern text, type text) returns boolean language sql immutable strict parallel safe
return type ~ ('^' || replace(replace(replace(regexp_replace(pattern, '([^a-zA-Z0-9_*-])', '\\\1', 'g'), '**', '\Z'), '*', '[^.]+'), '\Z', '.+') || '$');
--> statement-breakpoint

-- One receipt a row: of all tenants for workers and operators, of the tenant that is set for everybody else. To look up one event, call
-- bus.event_deliveries: a condition on event_id reads all packed receipts of this view.
create view bus.deliveries with (security_barrier = true) as
with reader as materialized (select bus.reads_all_tenants() as reads_all, bus.current_tenant() as tenant)
select d.subscription_id, d.event_id, d.attempts, d.expired, d.duration_ms, d.delivered_at, d.erased
from (
  select r.subscription_id, r.event_id, r.attempts, r.expired, r.duration_ms, r.delivered_at, r.erased from bus.receipts r
  union all
  select b.subscription_id, u.event_id, 1::smallint, false, u.duration_ms, b.delivered_at, null::boolean
  from bus.receipt_batches b cross join lateral unnest(b.event_ids, b.durations_ms) as u (event_id, duration_ms)
) d
where (select r.reads_all from reader r)
  or exists (select from bus.events e where e.id = d.event_id and e.tenant_id = (select r.tenant from reader r));
--> statement-breakpoint

-- The trigger of the view: processes of the version before insert their receipts there during a rolling deployment. They do not know that an
-- event which was failing is done.
create function bus.insert_delivery() returns trigger language plpgsql as $body$
begin
  insert into bus.receipts (subscription_id, event_id, attempts, expired, duration_ms, delivered_at, erased)
  values (new.subscription_id, new.event_id, new.attempts, coalesce(new.expired, false), new.duration_ms, coalesce(new.delivered_at, now()), new.erased);
  delete from bus.failing f where f.subscription_id = new.subscription_id and f.event_id = new.event_id;
  return new;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint
create trigger insert_delivery instead of insert on bus.deliveries for each row execute function bus.insert_delivery();
--> statement-breakpoint

drop function bus.tenant_deliveries(uuid);
--> statement-breakpoint
drop function bus.event_deliveries(uuid);
--> statement-breakpoint

-- What became of an event: one row for each subscription that has or had it. An event that is still in the outbox has none.
-- `attempts` are the attempts made; all but the last one of a delivery failed. `timeline` are those that are recorded: the failed ones,
-- and the one that succeeded after them. Everything is looked up by index, also the job of an event that waits for its first attempt:
-- its id says when its events were published. Only reads.
create function bus.event_deliveries(of_event uuid)
returns table (
  subscription text, state text, attempts int, failure jsonb, due_at timestamptz, delivered_at timestamptz, duration_ms real, timeline jsonb)
language plpgsql stable as $body$
#variable_conflict use_column
declare
  of_tenant text;
  of_key text;
  of_type text;
  due timestamptz;
  event_ms bigint := bus.uuid_ms(of_event);
  moments bigint[] := array[event_ms];
begin
  select e.tenant_id, e.ordering_key, e.type, e.available_at into of_tenant, of_key, of_type, due from bus.events e where e.id = of_event;
  if due is not null and isfinite(due) then
    moments := moments || floor(extract(epoch from due) * 1000)::bigint;
  end if;
  return query
  with received as materialized (
    select s.id as subscription_id, r.attempts::int, r.expired, coalesce(r.erased, false) as erased, r.delivered_at, r.duration_ms
    from bus.subscriptions s
    join bus.receipts r on r.subscription_id = s.id and r.event_id = of_event
    union all
    select s.id, 1, false, false, b.delivered_at, b.duration_ms
    from bus.subscriptions s
    cross join lateral (
      select b.delivered_at, b.durations_ms[array_position(b.event_ids, of_event)] as duration_ms from bus.receipt_batches b
      where b.subscription_id = s.id and b.event_id <= of_event and b.event_id >= bus.receipt_span_floor(of_event)
        and b.last_event_id >= of_event and of_event = any (b.event_ids)
      limit 1) b
    where not exists (select from bus.receipts r where r.subscription_id = s.id and r.event_id = of_event)
  ), recorded as materialized (
    select a.subscription_id, jsonb_agg(jsonb_strip_nulls(jsonb_build_object('attempt', a.attempt, 'at', a.ended_at, 'durationMs', a.duration_ms,
      'succeeded', a.succeeded, 'name', a.error_name, 'code', a.error_code, 'message', a.error_message, 'stack', a.error_stack,
      'fingerprint', a.fingerprint, 'instanceId', a.instance_id)) order by a.ended_at, a.attempt) as timeline
    from bus.attempts a where a.event_id = of_event
    group by a.subscription_id
  ), failed as materialized (
    select f.* from bus.subscriptions s join bus.failing f on f.subscription_id = s.id and f.event_id = of_event
  ), waiting as materialized (
    select s.id, k.state, k.failed_event_id, k.attempts, k.failures, k.job_id, k.key_id
    from bus.subscriptions s
    left join lateral (
      select k.id as key_id, k.state, k.failed_event_id, k.attempts, k.failures, k.job_id
      from bus.ordered_keys k join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq
      where k.subscription_id = s.id and k.key_hash = bus.ordering_key_hash(of_tenant, of_key) and o.event_id = of_event
      limit 1
    ) k on true
    where not exists (select from received d where d.subscription_id = s.id)
  ), job as materialized (
    select distinct on (1) (r.job ->> 'subscription_id')::int as subscription_id, r.job ->> 'state' as state, (r.job ->> 'dead')::boolean as dead,
      (r.job ->> 'start_after')::timestamptz as start_after, (r.job ->> 'attempts')::int as attempts, nullif(r.job -> 'failure', 'null') as failure
    from bus.read_each(array(
      select format($job$
        select %s as subscription_id, q.state::text as state, q.start_after, %L::boolean as dead,
          case when q.single then coalesce((q.data ->> 'attempts')::int, 0) + q.retry_count + case when q.state = 'retry' then 1 else 0 end else 0 end as attempts,
          case when q.single then bus.last_failure(q.output, q.data) end as failure
        from (
          select b.*, jsonb_array_length(b.data -> 'eventIds') = 1 as single from pgboss.job b
          where b.name = %L and b.state < 'completed' and %s
          limit 1
        ) q
      $job$, c.id, c.dead, c.queue, c.condition)
      from (
        -- A failing event has a job of its own, and its dead letter and what is redriven from that remember it.
        select s.id, false as dead, 'bus.' || s.name as queue,
          format('b.id in (select x.id from pgboss.job x where x.name = %1$L and x.id = %2$L
            union all select x.id from pgboss.job x where x.name = %1$L and x.source_root_id = %2$L)', 'bus.' || s.name, f.job_id) as condition
        from failed f join bus.subscriptions s on s.id = f.subscription_id
        where not exists (select from received d where d.subscription_id = s.id)
        union all
        -- The job of a key.
        select s.id, false, 'bus.' || s.name, format('b.id = %L and b.data -> ''eventIds'' ? %L', w.job_id, of_event)
        from waiting w join bus.subscriptions s on s.id = w.id
        where w.job_id is not null and not exists (select from failed f where f.subscription_id = s.id)
        union all
        -- A first attempt.
        select s.id, false, 'bus.' || s.name,
          format('b.id >= bus.uuid_v7_floor(to_timestamp(%1$s::float8 / 1000)) and b.id < bus.uuid_v7_floor(to_timestamp((%2$s + 1)::float8 / 1000))
            and bus.job_may_hold(b.id, %2$s) and b.data -> ''eventIds'' ? %3$L', m.event_ms - 16384, m.event_ms, of_event)
        from waiting w join bus.subscriptions s on s.id = w.id
        cross join unnest(moments) as m (event_ms)
        where w.key_id is null and not exists (select from failed f where f.subscription_id = s.id)
          and exists (
            select from (
              select unnest(s.patterns) union all
              select unnest(d.patterns) from bus.declarations d where d.subscription_id = s.id) as p (pattern)
            where bus.pattern_matches(p.pattern, of_type))
      ) c
    )) as r (job)
    order by 1
  )
  select s.name,
    case
      when d.erased then 'erased'
      when d.expired then 'expired'
      when d.subscription_id is not null then 'delivered'
      when j.state = 'active' then 'delivering'
      when f.state = 'retrying' or (f.state is not null and j.state is not null) then 'retrying'
      when f.state is not null then 'dead'
      when j.attempts > 0 then 'retrying'
      when j.state is not null then 'waiting'
      when w.failed_event_id = of_event or w.state = 'parked' then 'dead'
      else 'waiting' end,
    coalesce(d.attempts, greatest(f.attempts, j.attempts), case when w.failed_event_id = of_event then w.attempts end, 0)::int,
    case
      when d.subscription_id is not null then null
      when f.state is not null then coalesce((
        select a.attempt from jsonb_array_elements(t.timeline) with ordinality as a (attempt, ordinal)
        where not (a.attempt ->> 'succeeded')::boolean order by a.ordinal desc limit 1), j.failure)
      when j.state is not null then j.failure
      when w.failed_event_id = of_event then w.failures -> -1 end,
    case when d.subscription_id is null then coalesce(j.start_after, f.next_attempt_at) end,
    d.delivered_at, d.duration_ms, coalesce(t.timeline, '[]')
  from bus.subscriptions s
  left join received d on d.subscription_id = s.id
  left join job j on j.subscription_id = s.id
  left join failed f on f.subscription_id = s.id
  left join waiting w on w.id = s.id and w.key_id is not null
  left join recorded t on t.subscription_id = s.id
  where d.subscription_id is not null or j.state is not null or f.state is not null or w.key_id is not null
  order by s.name collate "C";
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- A list of attempts without the stack traces of their errors and the instances that ran them.
create function bus.timeline_for_tenant(timeline jsonb) returns jsonb language sql immutable parallel safe
return (select coalesce(jsonb_agg(a.attempt - 'stack' - 'instanceId' order by a.ordinal), '[]') from jsonb_array_elements(timeline) with ordinality as a (attempt, ordinal));
--> statement-breakpoint

-- What became of an event of the tenant: bus.event_deliveries without stack traces and instances. No rows for an event of another tenant.
create function bus.tenant_deliveries(of_event uuid)
returns table (
  subscription text, state text, attempts int, failure jsonb, due_at timestamptz, delivered_at timestamptz, duration_ms real, timeline jsonb)
language plpgsql stable security definer as $body$
#variable_conflict use_column
begin
  if exists (select from bus.events e where e.id = of_event and e.tenant_id = bus.current_tenant()) then
    return query
    select d.subscription, d.state, d.attempts, d.failure - 'stack' - 'instanceId', d.due_at, d.delivered_at, d.duration_ms,
      bus.timeline_for_tenant(d.timeline)
    from bus.event_deliveries(of_event) d;
  end if;
end
$body$ set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- A page of the events that have become dead letters, in the order of that, of a subscription or of all, of a tenant or of all. Each
-- case is a statement of its own, so that each has its index. Only reads.
create function bus.dead_letter_page(for_subscription int, of_tenant text, after_time timestamptz, after_event uuid, max_count int)
returns setof bus.failing language plpgsql stable as $body$
begin
  if of_tenant is not null then
    return query select f.* from bus.failing f
    where f.tenant_id = of_tenant and f.state <> 'retrying' and (for_subscription is null or f.subscription_id = for_subscription)
      and (f.failed_at, f.event_id) > (after_time, after_event)
    order by f.failed_at, f.event_id limit max_count;
  elsif for_subscription is not null then
    return query select f.* from bus.failing f
    where f.subscription_id = for_subscription and f.state <> 'retrying' and (f.failed_at, f.event_id) > (after_time, after_event)
    order by f.failed_at, f.event_id limit max_count;
  else
    return query select f.* from bus.failing f
    where f.state <> 'retrying' and (f.failed_at, f.event_id) > (after_time, after_event)
    order by f.failed_at, f.event_id limit max_count;
  end if;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- The dead letters of a subscription or of all, of a tenant or of all, oldest first, with their failed attempts. A dead letter that
-- somebody has redriven or deleted through pg-boss is left out. Events that are parked behind a dead letter have no attempts. Only reads.
create function bus.dead_letters(of_subscription text, of_tenant text, max_count int)
returns table (
  event_id uuid, subscription text, job_id uuid, attempts int, failures jsonb, dead_at timestamptz, tenant_id text, ordering_key text, key_state text)
language plpgsql stable as $body$
#variable_conflict use_column
declare
  for_subscription int := (select s.id from bus.subscriptions s where s.name = of_subscription);
  after_time timestamptz := '-infinity';
  after_event uuid := '00000000-0000-0000-0000-000000000000';
  page_events uuid[];
  page_subscriptions int[];
  page_queues text[];
  page_jobs uuid[];
  dead_table text;
  present text[];
  found_in_table text[];
  letter_events uuid[] := '{}';
  letter_subscriptions int[] := '{}';
begin
  if of_subscription is not null and for_subscription is null then
    return;
  end if;
  loop
    select array_agg(f.event_id order by f.failed_at, f.event_id), array_agg(f.subscription_id order by f.failed_at, f.event_id),
      array_agg('bus.' || coalesce(s.name, '') || '.dead' order by f.failed_at, f.event_id), array_agg(f.job_id order by f.failed_at, f.event_id),
      max(f.failed_at)
    into page_events, page_subscriptions, page_queues, page_jobs, after_time
    from bus.dead_letter_page(for_subscription, of_tenant, after_time, after_event, max_count) f
    left join bus.subscriptions s on s.id = f.subscription_id;
    exit when page_events is null;
    after_event := page_events[cardinality(page_events)];
    present := '{}';
    -- Dead letters are in one table, as a rule.
    for dead_table in
      select distinct q.table_name from unnest(page_queues) as n (name) join pgboss.queue q on q.name = n.name
    loop
      execute format($job$
        select array_agg(b.name || b.source_root_id) from unnest($1, $2) as u (name, root)
        join pgboss.%I b on b.name = u.name and b.source_root_id = u.root and b.state < 'active'
      $job$, dead_table) into found_in_table using page_queues, page_jobs;
      present := present || coalesce(found_in_table, '{}');
    end loop;
    for n in 1 .. cardinality(page_events) loop
      if page_queues[n] || page_jobs[n] = any (present) then
        letter_events := letter_events || page_events[n];
        letter_subscriptions := letter_subscriptions || page_subscriptions[n];
      end if;
    end loop;
    exit when cardinality(letter_events) >= max_count or cardinality(page_events) < max_count;
  end loop;
  -- Only the partitions of these events are read.
  return query
  with history as materialized (
    select a.event_id, a.subscription_id, jsonb_agg(jsonb_strip_nulls(jsonb_build_object('attempt', a.attempt, 'at', to_jsonb(a.ended_at),
      'name', a.error_name, 'message', a.error_message, 'code', a.error_code, 'stack', a.error_stack)) order by a.ended_at, a.attempt) as failures
    from bus.attempts a where a.event_id = any (letter_events) and not a.succeeded
    group by a.event_id, a.subscription_id
  )
  select l.event_id, l.name, l.job_id, l.attempts, l.failures, l.failed_at, l.tenant_id, l.ordering_key, l.state
  from (
    select f.event_id, s.name, f.job_id, f.attempts::int as attempts, coalesce(h.failures, '[]') as failures,
      f.failed_at, f.tenant_id, k.ordering_key, k.state, 0::bigint as seq
    from unnest(letter_events, letter_subscriptions) as u (event_id, subscription_id)
    join bus.failing f on f.subscription_id = u.subscription_id and f.event_id = u.event_id
    join bus.subscriptions s on s.id = f.subscription_id
    left join history h on h.event_id = f.event_id and h.subscription_id = f.subscription_id
    left join bus.ordered_keys k on k.id = f.key_id and k.failed_event_id = f.event_id and k.state in ('blocked', 'parked')
    union all
    (select o.event_id, s.name, o.event_id, 0, '[]', greatest(to_timestamp(bus.uuid_ms(o.event_id) / 1000.0), k.failed_at),
      k.tenant_id, k.ordering_key, k.state, o.seq
    from bus.ordered_keys k
    join bus.subscriptions s on s.id = k.subscription_id
    join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq and o.event_id <> k.failed_event_id
    where k.failed_at is not null and k.state = 'parked' and (for_subscription is null or k.subscription_id = for_subscription)
      and (of_tenant is null or k.tenant_id = of_tenant)
    order by 6, o.seq limit max_count)
  ) l
  order by l.failed_at, l.seq, l.event_id
  limit max_count;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

drop function bus.tenant_dead_letters(text, int);
--> statement-breakpoint

-- The dead letters of the tenant, without stack traces, oldest first, at most a thousand.
create function bus.tenant_dead_letters(of_subscription text, max_count int)
returns table (
  event_id uuid, subscription text, job_id uuid, attempts int, failures jsonb, dead_at timestamptz, tenant_id text, ordering_key text, key_state text)
language plpgsql stable security definer as $body$
begin
  if bus.current_tenant() is not null then
    return query
    select l.event_id, l.subscription, l.job_id, l.attempts, bus.without_stacks(l.failures), l.dead_at, l.tenant_id, l.ordering_key, l.key_state
    from bus.dead_letters(of_subscription, bus.current_tenant(), least(max_count, 1000)) l;
  end if;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- The dead letters of a subscription or of all, by error: the errors of a group have the same name, code and message, up to numbers and
-- quoted texts. Most frequent first. `event_id` is the newest of a group. Only reads.
create function bus.dead_letter_groups(of_subscription text, max_count int)
returns table (
  subscription text, fingerprint text, error_name text, error_code text, message text, letter_count bigint, first_at timestamptz, last_at timestamptz,
  event_id uuid)
language plpgsql stable as $body$
#variable_conflict use_column
declare
  groups jsonb;
  newest uuid[];
begin
  select jsonb_agg(to_jsonb(g) || jsonb_build_object('event_id', n.event_id, 'error_name', n.error_name, 'error_code', n.error_code)), array_agg(n.event_id)
  into groups, newest
  from (
    select f.subscription_id, f.fingerprint, count(*) as letter_count, min(f.failed_at) as first_at, max(f.failed_at) as last_at
    from bus.failing f
    where f.state in ('dead', 'blocked', 'parked')
      and (of_subscription is null or f.subscription_id = (select s.id from bus.subscriptions s where s.name = of_subscription))
    group by f.subscription_id, f.fingerprint
    order by count(*) desc, max(f.failed_at) desc limit max_count
  ) g
  cross join lateral (
    select f.event_id, f.error_name, f.error_code from bus.failing f
    where f.subscription_id = g.subscription_id and f.state <> 'retrying' and f.failed_at = g.last_at
      and f.fingerprint is not distinct from g.fingerprint
    limit 1
  ) n;
  -- Only the partitions of these events are read.
  return query
  select s.name, g.fingerprint, g.error_name, g.error_code, m.message, g.letter_count, g.first_at, g.last_at, g.event_id
  from jsonb_to_recordset(groups) as g (
    subscription_id int, fingerprint text, error_name text, error_code text, letter_count bigint, first_at timestamptz, last_at timestamptz, event_id uuid)
  join bus.subscriptions s on s.id = g.subscription_id
  left join (
    select distinct on (a.event_id, a.subscription_id) a.event_id, a.subscription_id, a.error_message as message
    from bus.attempts a where a.event_id = any (newest) and not a.succeeded
    order by a.event_id, a.subscription_id, a.ended_at desc
  ) m on m.event_id = g.event_id and m.subscription_id = g.subscription_id
  order by g.letter_count desc, g.last_at desc;
end
$body$ set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Where the partitions of the log begin and end, in order, between two ids, and these two. A statement on events between two neighbours
-- locks one partition and its indexes. Only reads.
create function bus.partition_bounds(from_id uuid, to_id uuid) returns uuid[] language sql stable
return (
  select array_agg(distinct b.bound order by b.bound) from (
    select from_id as bound union all select to_id union all
    select m[1]::uuid from pg_inherits i join pg_class c on c.oid = i.inhrelid
    cross join lateral regexp_matches(pg_get_expr(c.relpartbound, c.oid), '([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})', 'g') as m
    where i.inhparent = 'bus.events'::regclass
  ) b
  where b.bound between from_id and to_id);
--> statement-breakpoint

-- How many events of the tenant, with ids from one up to and not including another, each subscription has delivered, let expire, has
-- waiting or has as dead letters. Subscriptions that have and had none of them are left out. It reads one month after the other, and
-- releases its locks in between, as bus.read_each does.
create or replace function bus.tenant_delivery_stats(from_id uuid, to_id uuid)
returns table (subscription text, delivered bigint, expired bigint, waiting bigint, dead bigint)
language plpgsql stable security definer as $body$
#variable_conflict use_column
declare
  tenant text := bus.current_tenant();
  bounds uuid[] := bus.partition_bounds(from_id, to_id);
  pending_subscriptions int[];
  pending_events uuid[];
  pending_dead boolean[];
  counted jsonb;
  counts jsonb := '[]';
  low uuid;
  high uuid;
begin
  select array_agg(p.subscription_id), array_agg(p.event_id), array_agg(p.dead) into pending_subscriptions, pending_events, pending_dead
  from (
    -- A dead letter that is redriven waits again.
    select p.subscription_id, p.event_id, bool_and(p.dead) as dead from (
      select (r.jobs ->> 'subscription_id')::int as subscription_id, x.event_id::uuid as event_id, false as dead
      from bus.read_each(array(
        select format($job$
          select %s as subscription_id, jsonb_agg(j.event_id) as event_ids
          from (
            select jsonb_array_elements_text(b.data -> 'eventIds') as event_id
            from pgboss.job b where b.name = %L and b.state < 'completed'
          ) j
          where j.event_id::uuid >= %L and j.event_id::uuid < %L
          having count(*) > 0
        $job$, s.id, 'bus.' || s.name, from_id, to_id)
        from bus.subscriptions s
      )) as r (jobs)
      cross join lateral jsonb_array_elements_text(r.jobs -> 'event_ids') as x (event_id)
      union all
      select f.subscription_id, f.event_id, f.state <> 'retrying'
      from bus.failing f where f.tenant_id = tenant and f.event_id >= from_id and f.event_id < to_id
      union all
      -- The events of keys: those that wait, and those that are parked after a failed event.
      select k.subscription_id, o.event_id, k.state = 'parked'
      from bus.ordered_keys k join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq
      where k.tenant_id = tenant and o.event_id is distinct from k.failed_event_id and o.event_id >= from_id and o.event_id < to_id
    ) p
    group by p.subscription_id, p.event_id
  ) p;
  for n in 1 .. cardinality(bounds) - 1 loop
    low := bounds[n];
    high := bounds[n + 1];
    begin
      with tenant_events as materialized (
        select e.id from bus.events e where e.tenant_id = tenant and e.id >= low and e.id < high
      ), received as materialized (
        select r.subscription_id, r.event_id, bool_and(r.expired) as expired from (
          select r.subscription_id, r.event_id, r.expired from tenant_events m join bus.receipts r on r.event_id = m.id
          where r.event_id >= low and r.event_id < high
          union all
          select b.subscription_id, u.event_id, false
          from bus.receipt_batches b cross join lateral unnest(b.event_ids) as u (event_id) join tenant_events m on m.id = u.event_id
          where b.event_id >= bus.receipt_span_floor(low) and b.event_id < high
        ) r group by 1, 2
      )
      select jsonb_agg(to_jsonb(c)) into counted from (
        select r.subscription_id, count(*) filter (where not r.expired) as delivered, count(*) filter (where r.expired) as expired,
          0 as waiting, 0 as dead
        from received r group by r.subscription_id
        union all
        select p.subscription_id, 0, 0, count(*) filter (where not p.dead), count(*) filter (where p.dead)
        from unnest(pending_subscriptions, pending_events, pending_dead) as p (subscription_id, event_id, dead)
        join tenant_events m on m.id = p.event_id
        where p.event_id >= low and p.event_id < high
          and not exists (select from received r where r.subscription_id = p.subscription_id and r.event_id = p.event_id)
        group by p.subscription_id
      ) c;
      raise exception using errcode = 'BUS00';
    exception when sqlstate 'BUS00' then
      null;
    end;
    counts := counts || coalesce(counted, '[]');
  end loop;
  return query
  select s.name, sum(c.delivered)::bigint, sum(c.expired)::bigint, sum(c.waiting)::bigint, sum(c.dead)::bigint
  from jsonb_to_recordset(counts) as c (subscription_id int, delivered bigint, expired bigint, waiting bigint, dead bigint)
  join bus.subscriptions s on s.id = c.subscription_id
  group by s.name
  order by s.name collate "C";
end
$body$ set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Functions: erasure and partitions.

-- Erases what failed attempts at the erased events of a subject say, because an error may quote its event: number, time, name and code
-- stay. Returns the number of attempts that it has changed. Repeating it changes nothing.
create function bus.scrub_attempts(of_tenant text, of_subject text) returns bigint language plpgsql security definer as $body$
declare
  scrubbed bigint;
begin
  update bus.attempts a set error_message = 'erased', error_stack = null
  from bus.events e
  where e.tenant_id = of_tenant and e.subject = of_subject and e.erased_at is not null
    and hashtextextended(e.subject, hashtextextended(e.tenant_id, 0)) = hashtextextended(of_subject, hashtextextended(of_tenant, 0))
    and a.event_id = e.id and not a.succeeded and (a.error_message is distinct from 'erased' or a.error_stack is not null);
  get diagnostics scrubbed = row_count;
  return scrubbed;
end
$body$ set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Creates the partitions that the log and the ledger lack for last month, this month and some months ahead (UTC), without delaying
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
create or replace function bus.create_partitions(months_ahead int default 3) returns int language plpgsql security definer as $body$
declare
  parents constant text[] := array['events', 'receipts', 'receipt_batches', 'attempts'];
  parent text;
  month record;
  made text[] := '{}';
  has_begun boolean;
  created int := 0;
begin
  if months_ahead > 24 then
    raise exception 'Expected months_ahead to be at most 24, got %', months_ahead using errcode = '22023';
  end if;
  -- As a rule nothing is missing, and each start of a bus asks.
  if not exists (
      select from unnest(parents) as p (parent) cross join lateral bus.months_of(p.parent, months_ahead) m
      where to_regclass('bus.' || m.partition_name) is null)
    and not exists (select from unnest(parents) as p (parent) cross join lateral bus.default_partition_constraint(p.parent) c)
  then
    return 0;
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
        -- Default privileges may grant access to it: it is read through the log and the ledger, or not at all.
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
    raise warning 'partitions could not be created now: the log or the ledger is in use';
    return 0;
  end;
  return created;
end
$body$ set search_path = pg_catalog, pg_temp set lock_timeout = '30ms';
--> statement-breakpoint

-- Whether the default partitions have rows, counted up to ten thousand, and which partitions of coming months are missing. Only reads.
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
      select p.parent || to_char(m.month_start, '_YYYY_MM')
      from generate_series(1, months_ahead) as n (ahead)
      cross join lateral (select date_trunc('month', now() at time zone 'utc') + make_interval(months => n.ahead) as month_start) m
      cross join (values ('events'), ('receipts'), ('receipt_batches'), ('attempts')) as p (parent)
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
create or replace function bus.repair_sequences() returns table (name text, was bigint, now bigint) language plpgsql security definer as $body$
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
        (select max(s.id) from bus.subscriptions s), (select max(r.subscription_id) from bus.receipts r), (select max(b.subscription_id) from bus.receipt_batches b), (select max(k.subscription_id) from bus.ordered_keys k))
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

-- Row security. A packed row holds events of several tenants, and an attempt says what an error said: a tenant reads neither, but what
-- the functions and the view above show of them.

alter table bus.receipt_batches enable row level security;
--> statement-breakpoint
alter table bus.receipt_batches_default enable row level security;
--> statement-breakpoint
alter table bus.attempts enable row level security;
--> statement-breakpoint
alter table bus.attempts_default enable row level security;
--> statement-breakpoint
alter table bus.failing enable row level security;
--> statement-breakpoint
alter table bus.rollups enable row level security;
--> statement-breakpoint
drop policy tenant_reads on bus.receipts;
--> statement-breakpoint
create policy tenant_reads on bus.receipts for select to public
using (exists (select from bus.events e where e.id = receipts.event_id));
--> statement-breakpoint
create policy tenant_reads on bus.failing for select to public using (tenant_id = (select bus.current_tenant()));
--> statement-breakpoint

-- Privileges. drizzle/roles.sql grants the rest to roles, by name.

revoke execute on function
  bus.received_events(int, uuid[]), bus.record_failures(int, jsonb, uuid), bus.record_recoveries(int, jsonb, uuid),
  bus.pack_receipts(int, uuid, int), bus.record_known_failures(int, int), bus.is_single_event(jsonb), bus.insert_delivery(), bus.event_deliveries(uuid),
  bus.timeline_for_tenant(jsonb), bus.tenant_deliveries(uuid), bus.dead_letter_page(int, text, timestamptz, uuid, int),
  bus.dead_letters(text, text, int), bus.tenant_dead_letters(text, int), bus.dead_letter_groups(text, int), bus.partition_bounds(uuid, uuid), bus.scrub_attempts(text, text)
from public;
--> statement-breakpoint
-- The view of receipts calls the first two for every role; the others read and write nothing.
grant execute on function
  bus.reads_all_tenants(), bus.pattern_matches(text, text), bus.uuid_ms(uuid), bus.receipt_span_floor(uuid), bus.job_may_hold(uuid, bigint)
to public;
