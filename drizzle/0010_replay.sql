-- Replaying events to subscriptions that exist, and catching up of new ones.
--
-- * bus.replays: one row for each replay and subscription. Its id, below 0, stands for the subscription in the ledger: receipts, attempts and
--   failing events of a replay are rows of their own there, so that a replay changes nothing of the first delivery.
-- * bus.replay_outcomes: what became of replayed events, one row for each settlement, until the operation adds it to its counts.
-- * bus.catch_up_dispatched: events that a claim has routed to a subscription while it catches up.
--
-- See docs/adr/0034-replay-and-catch-up.md.
--
-- It replaces what earlier files define: bus.begin_ordered_keys, bus.enqueue_ordered and bus.advance_ordered_keys (0001); bus.record_failures,
-- bus.record_known_failures and the view bus.deliveries (0005).

-- Tables. src/delivery/ledger/schema.ts and src/delivery/schema.ts describe their columns.

create table bus.replays (
  id integer primary key not null,
  operation_id uuid not null,
  subscription_id integer not null,
  constraint replays_operation_subscription_unique unique (operation_id, subscription_id),
  constraint replays_id_check check (id < 0)
);
--> statement-breakpoint
create table bus.replay_outcomes (
  replay_id integer not null,
  delivered integer default 0 not null,
  expired integer default 0 not null,
  dead integer default 0 not null
);
--> statement-breakpoint
create table bus.catch_up_dispatched (
  subscription_id integer not null,
  event_id uuid not null,
  constraint catch_up_dispatched_subscription_id_event_id_pk primary key (subscription_id, event_id)
);
--> statement-breakpoint
alter table bus.subscriptions add column catch_up_until uuid;
--> statement-breakpoint
alter table bus.ordered_events add column replay_id integer;
--> statement-breakpoint

-- Indexes.

create index replay_outcomes_replay_idx on bus.replay_outcomes (replay_id);
--> statement-breakpoint
create index ordered_events_replay_idx on bus.ordered_events (replay_id) where replay_id is not null;
--> statement-breakpoint

-- Row security. They concern all tenants: a tenant reads none of them.

alter table bus.replays enable row level security;
--> statement-breakpoint
alter table bus.replay_outcomes enable row level security;
--> statement-breakpoint
alter table bus.catch_up_dispatched enable row level security;
--> statement-breakpoint

-- Functions: ordered keys. As before, but that a job of a key holds events of one replay, or of none.

drop function bus.begin_ordered_keys(bigint[], int, int);
--> statement-breakpoint
drop function bus.advance_ordered_keys(bigint[], uuid[], uuid[], int[], int, int);
--> statement-breakpoint
drop function bus.enqueue_ordered(int, int, int, text[], text[], uuid[], int[], text[], boolean, boolean);
--> statement-breakpoint

-- Assigns keys their next job: as many of their first events as fit into one and are of the same replay, or of none. Deletes keys that have
-- no event left. The caller inserts a pg-boss job for each row returned.
-- Locks: none of its own; the caller has locked the rows of the keys.
-- Repeating: the caller calls it only for keys without a job, or whose job it has just ended under the same lock.
create function bus.begin_ordered_keys(key_ids bigint[], batch_size int, batch_bytes int)
returns table (key_id bigint, job_id uuid, event_ids uuid[], replay_id int, operation_id uuid) language plpgsql as $body$
#variable_conflict use_column
begin
  return query
  with heads as materialized (
    select k.id, h.event_ids, first.replay_id
    from unnest(key_ids) as u (id)
    join bus.ordered_keys k on k.id = u.id
    left join lateral (
      select e.replay_id from bus.ordered_events e where e.key_id = k.id and e.seq > k.done_seq order by e.seq limit 1
    ) first on true
    cross join lateral (
      select array_agg(f.event_id order by f.seq) as event_ids
      from (
        select w.event_id, w.seq, sum(w.payload_bytes) over (order by w.seq) as bytes, row_number() over (order by w.seq) as place,
          bool_and(w.replay_id is not distinct from first.replay_id) over (order by w.seq) as is_same
        from (
          select e.event_id, e.seq, e.payload_bytes, e.replay_id from bus.ordered_events e
          where e.key_id = k.id and e.seq > k.done_seq
          order by e.seq
          limit case when k.done_seq < k.singly_through_seq then 1 else batch_size end
        ) w
      ) f
      where f.place = 1 or (f.bytes <= batch_bytes and f.is_same)
    ) h
  ), ended as (
    delete from bus.ordered_keys k using heads h where k.id = h.id and h.event_ids is null
  )
  update bus.ordered_keys k
  set state = 'active', job_id = bus.uuid_v7(), failed_event_id = null, attempts = null, failures = null, failed_at = null
  from heads h where k.id = h.id and h.event_ids is not null
  returning k.id, k.job_id, h.event_ids, h.replay_id,
    case when h.replay_id is not null then (select r.operation_id from bus.replays r where r.id = h.replay_id) end;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off;
--> statement-breakpoint

-- Appends events to their keys, in the order given, and assigns idle keys a job. Blocked and parked keys keep what they are given.
--
-- It never waits long. An event is held if the row of its key is locked (by a worker that was stopped, by an operator), or if
-- the key has held events already, unless these are the held ones (`were_held`). A held event keeps a row of the outbox,
-- for this subscription alone, and a row of nulls in the answer says so. With `may_wait` it waits 50 ms for the first locked row,
-- because most are locked by a settlement that is about to commit.
-- Locks: as bus.lock_ordered_keys.
-- Repeating: the claim that calls it removes the events from the outbox in the same transaction, so it sees each event once.
create function bus.enqueue_ordered(
  for_subscription int, batch_size int, batch_bytes int,
  tenant_ids text[], ordering_keys text[], new_event_ids uuid[], payload_sizes int[], types text[], were_held boolean, may_wait boolean
) returns table (key_id bigint, job_id uuid, event_ids uuid[], replay_id int, operation_id uuid) language plpgsql as $body$
#variable_conflict use_column
declare
  hashes uuid[] := array(
    select bus.ordering_key_hash(e.tenant_id, e.ordering_key)
    from unnest(tenant_ids, ordering_keys) with ordinality as e (tenant_id, ordering_key, ordinal) order by e.ordinal);
  refused uuid[] := '{}';
begin
  if not may_wait then
    perform set_config('lock_timeout', '1ms', true);
  end if;
  if not were_held and exists (select from bus.outbox o where o.subscription_id = for_subscription and o.ordering_key is not null) then
    refused := array(
      select distinct e.key_hash from unnest(hashes, tenant_ids, ordering_keys) as e (key_hash, tenant_id, ordering_key)
      where exists (
        select from bus.outbox o
        where o.subscription_id = for_subscription and o.tenant_id = e.tenant_id and o.ordering_key = e.ordering_key));
  end if;
  if cardinality(refused) = 0 then
    refused := bus.lock_ordered_keys(for_subscription, hashes, tenant_ids, ordering_keys);
  else
    refused := refused || (
      select bus.lock_ordered_keys(for_subscription, array_agg(e.key_hash), array_agg(e.tenant_id), array_agg(e.ordering_key))
      from unnest(hashes, tenant_ids, ordering_keys) as e (key_hash, tenant_id, ordering_key)
      where e.key_hash <> all (refused)
      having count(*) > 0);
  end if;
  -- Held again, they would come after those of their key that are held still.
  if were_held and cardinality(refused) > 0 then
    raise exception 'the row of a key is locked' using errcode = 'lock_not_available';
  end if;

  -- Each key is looked up by itself in the index: a join may read all keys of the subscription instead.
  insert into bus.ordered_events (key_id, event_id, payload_bytes)
  select
    (select k.id from bus.ordered_keys k where k.subscription_id = for_subscription and k.key_hash = e.key_hash),
    e.event_id, e.payload_bytes
  from unnest(hashes, new_event_ids, payload_sizes) with ordinality as e (key_hash, event_id, payload_bytes, ordinal)
  where cardinality(refused) = 0 or e.key_hash <> all (refused)
  order by e.ordinal;

  return query
  select b.key_id, b.job_id, b.event_ids, b.replay_id, b.operation_id
  from bus.begin_ordered_keys(
    array(
      select i.id
      from (select distinct h.key_hash from unnest(hashes) as h (key_hash)) e
      cross join lateral (
        select (
          select k.id from bus.ordered_keys k
          where k.subscription_id = for_subscription and k.key_hash = e.key_hash and k.state = 'active' and k.job_id is null
        ) as id
      ) i
      where i.id is not null and (cardinality(refused) = 0 or e.key_hash <> all (refused))),
    batch_size, batch_bytes) b;

  if cardinality(refused) > 0 then
    insert into bus.outbox (position, event_id, tenant_id, type, payload_bytes, ordering_key, subscription_id)
    overriding system value
    select nextval('bus.outbox_position_seq') - 4611686018427387904,
      e.event_id, e.tenant_id, e.type, e.payload_bytes, e.ordering_key, for_subscription
    from (
      select * from unnest(hashes, new_event_ids, tenant_ids, types, payload_sizes, ordering_keys)
        with ordinality as u (key_hash, event_id, tenant_id, type, payload_bytes, ordering_key, ordinal)
      where u.key_hash = any (refused)
      order by u.ordinal) e;
    return query select null::bigint, null::uuid, null::uuid[], null::int, null::uuid;
  end if;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
  set lock_timeout = '50ms';
--> statement-breakpoint

-- Removes the first events of keys, as many as are done, and assigns the keys their next job. Only for the current job of a key,
-- or for the event that a blocked or parked key waits for, wherever that was delivered: a worker that was presumed dead changes
-- nothing.
-- Locks: the rows of the keys, in the order of key_hash.
-- Repeating: the key has another job by then, so nothing matches and nothing is written.
create function bus.advance_ordered_keys(
  key_ids bigint[], job_ids uuid[], first_event_ids uuid[], done_counts int[], batch_size int, batch_bytes int
) returns table (key_id bigint, job_id uuid, event_ids uuid[], replay_id int, operation_id uuid) language plpgsql as $body$
#variable_conflict use_column
declare
  locked_ids bigint[];
begin
  locked_ids := array(
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
    where k.id = any (locked_ids)
  ), removed as (
    delete from bus.ordered_events e using done d where e.key_id = d.id and e.seq = d.seq
  )
  update bus.ordered_keys k set done_seq = d.seq
  from (select done.id, max(done.seq) as seq from done group by done.id) d
  where k.id = d.id;

  return query select b.key_id, b.job_id, b.event_ids, b.replay_id, b.operation_id from bus.begin_ordered_keys(locked_ids, batch_size, batch_bytes) b;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off;
--> statement-breakpoint

-- Appends events of a replay, or of a catch-up (without `for_replay`), to their keys, in the order given, and assigns idle keys a job: behind
-- what waits there. Events that are published later come behind them.
-- Locks: the advisory lock on the order (1651864320, 6), so that no claim adds keys meanwhile; then the rows of the keys, in the order of
-- key_hash. A row that another session holds for half a second is an error: nothing is appended.
-- Repeating: the part of the operation that calls it moves its cursor in the same transaction.
create function bus.enqueue_replayed(
  for_subscription int, for_replay int, batch_size int, batch_bytes int,
  tenant_ids text[], ordering_keys text[], new_event_ids uuid[], payload_sizes int[]
) returns table (key_id bigint, job_id uuid, event_ids uuid[], replay_id int, operation_id uuid) language plpgsql as $body$
#variable_conflict use_column
declare
  hashes uuid[] := array(
    select bus.ordering_key_hash(e.tenant_id, e.ordering_key)
    from unnest(tenant_ids, ordering_keys) with ordinality as e (tenant_id, ordering_key, ordinal) order by e.ordinal);
begin
  perform pg_advisory_xact_lock(1651864320, 6);
  if cardinality(bus.lock_ordered_keys(for_subscription, hashes, tenant_ids, ordering_keys)) > 0 then
    raise exception 'the row of a key is locked' using errcode = 'lock_not_available';
  end if;
  insert into bus.ordered_events (key_id, event_id, payload_bytes, replay_id)
  select
    (select k.id from bus.ordered_keys k where k.subscription_id = for_subscription and k.key_hash = e.key_hash),
    e.event_id, e.payload_bytes, for_replay
  from unnest(hashes, new_event_ids, payload_sizes) with ordinality as e (key_hash, event_id, payload_bytes, ordinal)
  order by e.ordinal;
  return query
  select b.key_id, b.job_id, b.event_ids, b.replay_id, b.operation_id
  from bus.begin_ordered_keys(
    array(
      select i.id
      from (select distinct h.key_hash from unnest(hashes) as h (key_hash)) e
      cross join lateral (
        select (
          select k.id from bus.ordered_keys k
          where k.subscription_id = for_subscription and k.key_hash = e.key_hash and k.state = 'active' and k.job_id is null
        ) as id
      ) i
      where i.id is not null),
    batch_size, batch_bytes) b;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
  set lock_timeout = '500ms';
--> statement-breakpoint

-- Functions: writing to the ledger. As before, but for replays.

-- Records failed attempts, and that their events are failing: retried, dead, or holding their key.
-- Locks: the rows of bus.failing that it writes, in the order of their events.
-- Repeating: an attempt that is recorded stays as it is, and the row of the event gets the values that it has. A late worker does
-- not bring back an event that is done.
create or replace function bus.record_failures(for_subscription int, failures jsonb, of_instance uuid) returns void language plpgsql as $body$
declare
  -- The row of a replay stands for its subscription.
  queue text := (
    select 'bus.' || s.name from bus.subscriptions s
    where s.id = case when for_subscription > 0 then for_subscription else (select r.subscription_id from bus.replays r where r.id = for_subscription) end);
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

-- Records failing events of a subscription that only jobs know of, and what these know of their attempts: those of the version before, and
-- of its processes that run beside newer ones during a deployment. At most so many; returns the number of events that it has recorded.
-- Planned anew for the queue of each call: a generic plan would lock all queues.
-- Locks: the jobs, but for those that a worker is settling. Repeating: what is recorded is skipped.
create or replace function bus.record_known_failures(for_subscription int, max_count int) returns bigint language plpgsql as $body$
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
    where b.name in (queue, queue || '.dead') and bus.is_single_event(b.data) and not b.data ? 'replay'
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

-- One receipt a row, but for those of replays: of all tenants for workers and operators, of the tenant that is set for everybody else. To look up one event, call
-- bus.event_deliveries: a condition on event_id reads all packed receipts of this view.
create or replace view bus.deliveries with (security_barrier = true) as
with reader as materialized (select bus.reads_all_tenants() as reads_all, bus.current_tenant() as tenant)
select d.subscription_id, d.event_id, d.attempts, d.expired, d.duration_ms, d.delivered_at, d.erased, d.discarded
from (
  select r.subscription_id, r.event_id, r.attempts, r.expired, r.duration_ms, r.delivered_at, r.erased, r.discard_id is not null as discarded from bus.receipts r where r.subscription_id > 0
  union all
  select b.subscription_id, u.event_id, 1::smallint, false, u.duration_ms, b.delivered_at, null::boolean, false
  from bus.receipt_batches b cross join lateral unnest(b.event_ids, b.durations_ms) as u (event_id, duration_ms)
  where b.subscription_id > 0
) d
where (select r.reads_all from reader r)
  or exists (select from bus.events e where e.id = d.event_id and e.tenant_id = (select r.tenant from reader r));
--> statement-breakpoint

-- Functions: reading.

-- What became of an event in replays, of the latest thousand, latest first: of those that have delivered it, or have tried to. Everything is
-- looked up by index. Only reads.
create function bus.event_replays(of_event uuid)
returns table (subscription text, operation_id uuid, state text, attempts int, failure jsonb, due_at timestamptz, settled_at timestamptz, duration_ms real)
language plpgsql stable as $body$
#variable_conflict use_column
begin
  return query
  select s.name, r.operation_id,
    case
      when coalesce(d.erased, false) then 'erased'
      when d.expired then 'expired'
      when d.settled_at is not null then 'delivered'
      when f.state = 'retrying' then 'retrying'
      else 'dead' end,
    coalesce(d.attempts, f.attempts)::int,
    case when d.settled_at is null then (
      select jsonb_strip_nulls(jsonb_build_object('name', a.error_name, 'code', a.error_code, 'message', a.error_message, 'at', a.ended_at))
      from bus.attempts a
      where a.event_id = of_event and a.subscription_id = r.id and not a.succeeded order by a.ended_at desc limit 1) end,
    case when d.settled_at is null then f.next_attempt_at end,
    d.settled_at, d.duration_ms
  from (select r.* from bus.replays r order by r.id limit 1000) r
  join bus.subscriptions s on s.id = r.subscription_id
  left join lateral (
    select x.attempts, x.expired, x.erased, x.delivered_at as settled_at, x.duration_ms
    from bus.receipts x where x.subscription_id = r.id and x.event_id = of_event
    union all
    select 1, false, false, b.delivered_at, b.durations_ms[array_position(b.event_ids, of_event)]
    from bus.receipt_batches b
    where b.subscription_id = r.id and b.event_id <= of_event and b.event_id >= bus.receipt_span_floor(of_event)
      and b.last_event_id >= of_event and of_event = any (b.event_ids)
    limit 1) d on true
  left join bus.failing f on f.subscription_id = r.id and f.event_id = of_event
  where d.settled_at is not null or f.state is not null
  order by r.id;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
  set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- The same for an event of the tenant. No rows for an event of another tenant.
create function bus.tenant_replays(of_event uuid)
returns table (subscription text, operation_id uuid, state text, attempts int, failure jsonb, due_at timestamptz, settled_at timestamptz, duration_ms real)
language plpgsql stable security definer as $body$
#variable_conflict use_column
begin
  if exists (select from bus.events e where e.id = of_event and e.tenant_id = bus.current_tenant()) then
    return query select r.* from bus.event_replays(of_event) r;
  end if;
end
$body$ set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Privileges. drizzle/roles.sql grants the rest to roles, by name.

revoke execute on function
  bus.begin_ordered_keys(bigint[], int, int), bus.enqueue_ordered, bus.advance_ordered_keys(bigint[], uuid[], uuid[], int[], int, int),
  bus.enqueue_replayed, bus.event_replays(uuid), bus.tenant_replays(uuid)
from public;
