-- Delivery: which subscriptions there are, what has become of each event for each of them, and the order of events with the
-- same ordering key.

-- Functions that the defaults of columns call.

-- The id of a new key of an ordered subscription: the time in microseconds and eleven random bits. Not of a sequence, because a
-- copy of the database that came without the values of its sequences must not reuse the id of another key's events. Two equal
-- ids at once violate the primary key, and the claim is repeated.
create function bus.new_key_id() returns bigint language sql volatile parallel safe
return ((extract(epoch from clock_timestamp()) * 1000000)::bigint << 11) | floor(random() * 2048)::bigint;
--> statement-breakpoint

create sequence bus.subscription_revision;
--> statement-breakpoint

-- Tables. src/delivery/schema.ts describes their columns.

create table bus.subscriptions (
  id integer primary key generated always as identity (sequence name bus.subscriptions_id_seq),
  name text not null,
  service text not null,
  patterns text[] not null,
  "where" text,
  options jsonb not null,
  revision bigint default nextval('bus.subscription_revision') not null,
  paused_at timestamp (6) with time zone,
  paused_by text,
  pause_reason text,
  circuit_opened_at timestamp (6) with time zone,
  circuit_reason text,
  circuit_probe_at timestamp (6) with time zone,
  circuit_probe_count integer default 0 not null,
  uncovered_since timestamp (6) with time zone,
  created_at timestamp (6) with time zone default now() not null,
  updated_at timestamp (6) with time zone default now() not null,
  constraint subscriptions_name_unique unique (name)
);
--> statement-breakpoint
alter sequence bus.subscription_revision owned by bus.subscriptions.revision;
--> statement-breakpoint

create table bus.declarations (
  id integer primary key generated always as identity (sequence name bus.declarations_id_seq),
  subscription_id integer not null,
  hash text not null,
  patterns text[] not null,
  "where" text,
  options jsonb not null,
  declared_at timestamp (6) with time zone default now() not null,
  retired_at timestamp (6) with time zone,
  constraint declarations_variant_unique unique (subscription_id, hash)
);
--> statement-breakpoint

create table bus.instances (
  id uuid primary key not null,
  service text not null,
  host text not null,
  pid integer not null,
  version text not null,
  started_at timestamp (6) with time zone default now() not null,
  seen_at timestamp (6) with time zone not null,
  relay text not null,
  in_flight_count integer default 0 not null,
  declarations integer[] not null
);
--> statement-breakpoint

-- Receipts: one row for each event and subscription that is done. Partitioned by month, as the log.
create table bus.deliveries (
  subscription_id integer not null,
  event_id uuid not null,
  attempts smallint not null,
  expired boolean default false not null,
  duration_ms real not null,
  delivered_at timestamp (6) with time zone default now() not null,
  erased boolean,
  constraint deliveries_subscription_id_event_id_pk primary key (subscription_id, event_id)
) partition by range (event_id);
--> statement-breakpoint
create table bus.deliveries_default partition of bus.deliveries default;
--> statement-breakpoint

-- Order per key. A key of an ordered subscription has one row in bus.ordered_keys while it has events to deliver; the events
-- are in bus.ordered_events, in the order of delivery, until they are done. A key has at most one pg-boss job at a time, which
-- carries its first events.
--
-- Locks: a transaction that adds events to a key, removes them or changes its job locks the row of the key first. It reads the
-- events of the key in a later statement, so in a later snapshot, and overlooks none. Rows are locked in the order of key_hash,
-- so there are no deadlocks. A session keeps its plans, also one that was made while the tables were empty: the settings of the
-- functions make sure that every key is looked up in its index.
--
-- Rows live for milliseconds while subscribers keep up: see the settings of bus.outbox.
create table bus.ordered_keys (
  id bigint primary key default bus.new_key_id() not null,
  subscription_id integer not null,
  key_hash uuid not null,
  tenant_id text not null,
  ordering_key text not null,
  state text default 'active' not null,
  job_id uuid,
  done_seq bigint default 0 not null,
  singly_through_seq bigint default 0 not null,
  failed_event_id uuid,
  attempts smallint,
  failures jsonb,
  failed_at timestamp (6) with time zone,
  constraint ordered_keys_key_unique unique (subscription_id, key_hash)
) with (
  fillfactor = 70,
  autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_vacuum_insert_threshold = 50000,
  autovacuum_vacuum_cost_delay = 0
);
--> statement-breakpoint
create table bus.ordered_events (
  key_id bigint not null,
  seq bigint generated always as identity (sequence name bus.ordered_events_seq_seq),
  event_id uuid not null,
  payload_bytes integer not null,
  constraint ordered_events_key_id_seq_pk primary key (key_id, seq)
) with (
  autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_vacuum_insert_threshold = 50000,
  autovacuum_vacuum_cost_delay = 0
);
--> statement-breakpoint

-- Indexes.

create index ordered_keys_failed_idx on bus.ordered_keys (failed_at) where failed_at is not null;
--> statement-breakpoint

-- Functions: order per key.

-- The hash of a tenant's ordering key. It includes the length of the tenant, so two pairs never read alike. Stable rather than
-- immutable, so that it can be inlined.
create function bus.ordering_key_hash(tenant_id text, ordering_key text) returns uuid language sql stable parallel safe
return substr(encode(sha256(convert_to(length(tenant_id) || ':' || tenant_id || ordering_key, 'UTF8')), 'hex'), 1, 32)::uuid;
--> statement-breakpoint

-- Assigns keys their next job: as many of their first events as fit into one. Deletes keys that have no event left. The caller
-- inserts a pg-boss job for each row returned.
-- Locks: none of its own; the caller has locked the rows of the keys.
-- Repeating: the caller calls it only for keys without a job, or whose job it has just ended under the same lock.
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
  set state = 'active', job_id = bus.uuid_v7(), failed_event_id = null, attempts = null, failures = null, failed_at = null
  from heads h where k.id = h.id and h.event_ids is not null
  returning k.id, k.job_id, h.event_ids;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off;
--> statement-breakpoint

-- Locks the rows of some keys of a subscription, and inserts those that are missing. Returns the hashes of the keys that it could
-- not lock, because another transaction holds them longer than the caller's lock_timeout. It waits for that at most once; after
-- that it locks what is free, without waiting.
-- Locks: the caller holds the advisory lock on the order (1651864320, 6), so no other transaction adds keys meanwhile. Then the
-- rows, in the order of key_hash.
-- Repeating: in the same transaction the locks are there already; a key that exists is not inserted again.
create function bus.lock_ordered_keys(for_subscription int, hashes uuid[], tenant_ids text[], ordering_keys text[]) returns uuid[] language plpgsql as $body$
#variable_conflict use_column
declare
  refused uuid[] := '{}';
  locked uuid[];
  missing record;
begin
  perform from (
    select k.id from bus.ordered_keys k
    where k.subscription_id = for_subscription and k.key_hash = any (hashes)
    order by k.key_hash
    for update) k;
  insert into bus.ordered_keys (subscription_id, key_hash, tenant_id, ordering_key)
  select distinct on (e.key_hash) for_subscription, e.key_hash, e.tenant_id, e.ordering_key
  from unnest(hashes, tenant_ids, ordering_keys) as e (key_hash, tenant_id, ordering_key)
  order by e.key_hash
  on conflict (subscription_id, key_hash) do nothing;
  return refused;
exception when lock_not_available or deadlock_detected then
  perform set_config('lock_timeout', '1ms', true);
  locked := array(
    select k.key_hash from (
      select k.key_hash from bus.ordered_keys k
      where k.subscription_id = for_subscription and k.key_hash = any (hashes)
      order by k.key_hash
      for update skip locked) k);
  for missing in
    select distinct on (e.key_hash) e.key_hash, e.tenant_id, e.ordering_key
    from unnest(hashes, tenant_ids, ordering_keys) as e (key_hash, tenant_id, ordering_key)
    where e.key_hash <> all (locked)
    order by e.key_hash
  loop
    begin
      if exists (select from bus.ordered_keys k where k.subscription_id = for_subscription and k.key_hash = missing.key_hash) then
        refused := refused || missing.key_hash;
      else
        insert into bus.ordered_keys (subscription_id, key_hash, tenant_id, ordering_key)
        values (for_subscription, missing.key_hash, missing.tenant_id, missing.ordering_key);
      end if;
    exception when lock_not_available or deadlock_detected or unique_violation then
      refused := refused || missing.key_hash;
    end;
  end loop;
  return refused;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off
  set enable_mergejoin = off set jit = off;
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
) returns table (key_id bigint, job_id uuid, event_ids uuid[]) language plpgsql as $body$
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
  select b.key_id, b.job_id, b.event_ids
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
    return query select null::bigint, null::uuid, null::uuid[];
  end if;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
  set lock_timeout = '50ms';
--> statement-breakpoint

-- Takes some of the held events of a subscription out of the outbox: the first ones of keys that can be locked by now, or
-- are gone. It looks at up to a thousand keys and a hundred events of each, beginning behind the key that is given. A row without
-- an event names the last key that it looked at, if there may be more.
--
-- Locks: events with a key need the advisory lock on the order (1651864320, 6); if another transaction holds it, none of them are
-- returned. Then the rows of their keys, in the order of key_hash, and the outbox rows. Events without a key: the outbox rows,
-- skipping those that another relay has locked. All are held until the transaction ends.
-- Repeating: the rows are deleted in the transaction that delivers them, so each is taken once.
create function bus.take_held_events(for_subscription int, max_count int, after_tenant_id text, after_key text)
returns table (event_id uuid, tenant_id text, type text, payload_bytes int, ordering_key text) language plpgsql as $body$
#variable_conflict use_column
declare
  found_tenants text[] := '{}';
  found_keys text[] := '{}';
  hashes uuid[];
  refused uuid[];
  tenant text := coalesce(after_tenant_id, '');
  key text := coalesce(after_key, '');
begin
  if pg_try_advisory_xact_lock(1651864320, 6) then
    -- Steps from one key to the next, however many events each has.
    loop
      select o.tenant_id, o.ordering_key into tenant, key from bus.outbox o
      where o.subscription_id = for_subscription and o.ordering_key is not null
        and (o.tenant_id, o.ordering_key) > (tenant, key)
      order by o.tenant_id, o.ordering_key limit 1;
      exit when not found;
      found_tenants := found_tenants || tenant;
      found_keys := found_keys || key;
      exit when cardinality(found_keys) >= least(1000, max_count);
    end loop;
    hashes := array(
      select bus.ordering_key_hash(e.tenant_id, e.ordering_key)
      from unnest(found_tenants, found_keys) with ordinality as e (tenant_id, ordering_key, ordinal) order by e.ordinal);
    refused := bus.lock_ordered_keys(for_subscription, hashes, found_tenants, found_keys);
    return query
    with taken as (
      delete from bus.outbox o where o.position = any (array(
        select h.position
        from unnest(hashes, found_tenants, found_keys) as f (key_hash, tenant_id, ordering_key)
        cross join lateral (
          select p.position, row_number() over (order by p.position) as place
          from (
            select q.position from bus.outbox q
            where q.subscription_id = for_subscription and q.tenant_id = f.tenant_id and q.ordering_key = f.ordering_key
            order by q.position limit 100
          ) p
        ) h
        where f.key_hash <> all (refused)
        -- Some of each key: a key that was inserted here must get events.
        order by h.place, f.key_hash limit max_count))
      returning o.*
    )
    select t.event_id, t.tenant_id, t.type, t.payload_bytes, t.ordering_key from taken t order by t.position;
  end if;
  return query
  with taken as (
    delete from bus.outbox o where o.position = any (array(
      select p.position from bus.outbox p
      where p.subscription_id = for_subscription and p.ordering_key is null
      limit max_count for update skip locked))
    returning o.*
  )
  select t.event_id, t.tenant_id, t.type, t.payload_bytes, t.ordering_key from taken t order by t.position;
  if cardinality(found_keys) >= least(1000, max_count) then
    return query select null::uuid, tenant, null::text, null::int, key;
  end if;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off
  set enable_mergejoin = off set jit = off set lock_timeout = '1ms';
--> statement-breakpoint

-- Removes the first events of keys, as many as are done, and assigns the keys their next job. Only for the current job of a key,
-- or for the event that a blocked or parked key waits for, wherever that was delivered: a worker that was presumed dead changes
-- nothing.
-- Locks: the rows of the keys, in the order of key_hash.
-- Repeating: the key has another job by then, so nothing matches and nothing is written.
create function bus.advance_ordered_keys(
  key_ids bigint[], job_ids uuid[], first_event_ids uuid[], done_counts int[], batch_size int, batch_bytes int
) returns table (key_id bigint, job_id uuid, event_ids uuid[]) language plpgsql as $body$
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

  return query select b.key_id, b.job_id, b.event_ids from bus.begin_ordered_keys(locked_ids, batch_size, batch_bytes) b;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off;
--> statement-breakpoint

-- Removes the first events of keys, as many as are done, and writes what becomes of the next one, which failed: it gets a job of
-- its own for another attempt, or the key is blocked or parked. `singlyCount`: so many events, from the first one on, are
-- delivered one by one. Under the condition of bus.advance_ordered_keys; returns the keys that met it.
-- Locks: the rows of the keys, in the order of key_hash.
-- Repeating: a key with another job does not match, and nothing is written. A key that is blocked or parked by the first event of
-- the job matches, and gets the values that it has.
create function bus.fail_ordered_keys(failed_keys jsonb) returns bigint[] language plpgsql as $body$
declare
  failed record;
  new_done_seq bigint;
  new_singly_seq bigint;
  locked_ids bigint[] := '{}';
begin
  for failed in
    select h.*, k.id, k.done_seq
    from jsonb_to_recordset(failed_keys) as h (
      "keyId" bigint, "jobId" uuid, "eventId" uuid, "doneCount" int, "singlyCount" int, state text, "nextJobId" uuid,
      "failedEventId" uuid, attempts smallint, failures jsonb)
    join bus.ordered_keys k on k.id = h."keyId"
    where k.job_id = h."jobId" or (k.job_id is null and k.failed_event_id = h."eventId")
    order by k.key_hash
    for update of k
  loop
    select
      max(e.seq) filter (where e.place <= failed."doneCount"), max(e.seq) filter (where e.place <= failed."singlyCount")
    into new_done_seq, new_singly_seq
    from (
      select w.seq, row_number() over (order by w.seq) as place from bus.ordered_events w
      where w.key_id = failed.id and w.seq > failed.done_seq
      order by w.seq limit greatest(failed."doneCount", failed."singlyCount")
    ) e;
    delete from bus.ordered_events e where e.key_id = failed.id and e.seq > failed.done_seq and e.seq <= new_done_seq;
    update bus.ordered_keys k
    set state = failed.state, job_id = failed."nextJobId",
      done_seq = coalesce(new_done_seq, k.done_seq),
      singly_through_seq = greatest(new_singly_seq, k.singly_through_seq),
      failed_event_id = failed."failedEventId", attempts = failed.attempts, failures = failed.failures,
      failed_at = case when failed.state <> 'active' then coalesce(k.failed_at, now()) end
    where k.id = failed.id;
    locked_ids := locked_ids || failed.id;
  end loop;
  return locked_ids;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off;
--> statement-breakpoint

-- Functions: jobs of pg-boss.

-- Runs statements, a few at a time, and returns their rows. Reading the queue of a subscription locks a partition and its dozen
-- indexes, and a transaction keeps its locks: one statement that reads hundreds of queues fills the lock table of the server.
-- Locks that were taken after a savepoint are released when it is rolled back to. So each group of statements runs behind a
-- savepoint that is rolled back, and its rows are kept in a variable, which survives that. All statements see one snapshot, and
-- each names the same columns, because any of them may be the first of its group. Repeating: the statements only read.
create function bus.read_each(statements text[]) returns setof jsonb language plpgsql stable as $body$
declare
  -- Of three subscriptions with their dead letters: not more than 64 locks.
  at_once constant int := 3;
  found jsonb;
begin
  for n in 1 .. cardinality(statements) by at_once loop
    begin
      execute 'select jsonb_agg(to_jsonb(r)) from ((' || array_to_string(statements[n : n + at_once - 1], E')\nunion all\n(') || ')) r'
        into found;
      raise exception using errcode = 'BUS00';
    exception when sqlstate 'BUS00' then
      null;
    end;
    return query select e.value from jsonb_array_elements(coalesce(found, '[]')) e;
  end loop;
end
$body$ set search_path = pg_catalog, pg_temp set jit = off;
--> statement-breakpoint

-- How the last attempt failed: as recorded when it ended, otherwise as recorded by the attempts before. pg-boss itself ended the
-- attempt of a lost worker, and left a message.
create function bus.last_failure(ended jsonb, data jsonb) returns jsonb language sql immutable
return coalesce(
  case when ended -> 'value' ->> 'message' is not null then jsonb_build_object('name', 'WorkerLost', 'message', ended -> 'value' ->> 'message') end,
  ended -> 'failures' -> -1, data -> 'failures' -> -1);
--> statement-breakpoint

-- What became of an event: one row for each subscription that has or had it. An event that is still in the outbox has none.
-- `attempts` are the attempts made; all but the last one of a delivery failed. Receipts are looked up by key. Jobs are searched for
-- in the queues of the subscriptions without a receipt, so the cost depends on how many jobs wait there. Only reads.
create function bus.event_deliveries(of_event uuid)
returns table (subscription text, state text, attempts int, failure jsonb, due_at timestamptz, delivered_at timestamptz, duration_ms real)
language plpgsql stable as $body$
#variable_conflict use_column
declare
  of_tenant text;
  of_key text;
begin
  select e.tenant_id, e.ordering_key into of_tenant, of_key from bus.events e where e.id = of_event;
  return query
  with received as materialized (
    select d.* from bus.deliveries d where d.event_id = of_event
  ), job as materialized (
    select distinct on (1) (r.job ->> 'subscription_id')::int as subscription_id, r.job ->> 'state' as state, (r.job ->> 'dead')::boolean as dead,
      (r.job ->> 'start_after')::timestamptz as start_after, (r.job ->> 'attempts')::int as attempts,
      nullif(r.job -> 'failure', 'null') as failure
    from bus.read_each(array(
      select format($job$
        select %s as subscription_id, q.state::text as state, q.start_after, false as dead,
          case when q.single then coalesce((q.data ->> 'attempts')::int, 0) + q.retry_count + case when q.state = 'retry' then 1 else 0 end else 0 end as attempts,
          case when q.single then bus.last_failure(q.output, q.data) end as failure
        from (
          select b.*, jsonb_array_length(b.data -> 'eventIds') = 1 as single from pgboss.job b
          where b.name = %L and b.state < 'completed' and b.data -> 'eventIds' ? %L
          limit 1
        ) q
      $job$, s.id, 'bus.' || s.name, of_event)
      from bus.subscriptions s
      where not exists (select from received d where d.subscription_id = s.id)
      union all
      -- Dead letters are in one table, as a rule.
      select format($job$
        select s.id as subscription_id, b.state::text as state, b.start_after, true as dead,
          case when jsonb_array_length(b.data -> 'eventIds') = 1
            then coalesce((b.source_output ->> 'attempts')::int, coalesce((b.data ->> 'attempts')::int, 0) + coalesce(b.source_retry_count, 0) + 1)
            else 0 end as attempts,
          case when jsonb_array_length(b.data -> 'eventIds') = 1 then bus.last_failure(b.source_output, b.data) end as failure
        from bus.subscriptions s join pgboss.%I b on b.name = 'bus.' || s.name || '.dead'
        where b.state < 'completed' and b.data -> 'eventIds' ? %L
      $job$, t.table_name, of_event)
      from (
        select distinct q.table_name from pgboss.queue q join bus.subscriptions s on q.name = 'bus.' || s.name || '.dead'
      ) t
    )) as r (job)
    -- A redriven job comes before the dead letter that it was made of.
    order by 1, 3
  )
  select s.name,
    case
      when d.expired then 'expired'
      when d.event_id is not null then 'delivered'
      when j.dead then 'dead'
      when j.state = 'active' then 'delivering'
      when j.attempts > 0 then 'retrying'
      when j.state is not null then 'waiting'
      when w.failed_event_id = of_event or w.state = 'parked' then 'dead'
      else 'waiting' end,
    coalesce(d.attempts, j.attempts, case when w.failed_event_id = of_event then w.attempts end, 0)::int,
    case
      when d.event_id is not null then null
      when j.state is not null then j.failure
      when w.failed_event_id = of_event then w.failures -> -1 end,
    case when d.event_id is null and not j.dead then j.start_after end,
    d.delivered_at, d.duration_ms
  from bus.subscriptions s
  left join received d on d.subscription_id = s.id
  left join job j on j.subscription_id = s.id
  left join lateral (
    select k.state, k.failed_event_id, k.attempts, k.failures
    from bus.ordered_keys k join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq
    where d.event_id is null and k.subscription_id = s.id and k.key_hash = bus.ordering_key_hash(of_tenant, of_key) and o.event_id = of_event
    limit 1
  ) w on true
  where d.event_id is not null or j.state is not null or w.state is not null
  order by s.name collate "C";
end
$body$ set search_path = pg_catalog, pg_temp set jit = off;
--> statement-breakpoint

-- Privileges. drizzle/roles.sql grants the rest to roles, by name.

revoke execute on function
  bus.ordering_key_hash(text, text), bus.begin_ordered_keys(bigint[], int, int),
  bus.lock_ordered_keys(int, uuid[], text[], text[]), bus.enqueue_ordered, bus.take_held_events(int, int, text, text),
  bus.advance_ordered_keys(bigint[], uuid[], uuid[], int[], int, int), bus.fail_ordered_keys(jsonb), bus.read_each(text[]),
  bus.last_failure(jsonb, jsonb), bus.event_deliveries(uuid)
from public;
--> statement-breakpoint
-- It reads and writes nothing.
grant execute on function bus.new_key_id() to public;
