-- What a subscription cannot take now, because somebody holds a lock that its jobs need, keeps a row of the outbox for that
-- subscription alone: at a negative position, out of the way of all claims, in the order of the claims that left it.
ALTER TABLE "bus"."outbox" ADD COLUMN "subscription_id" integer;--> statement-breakpoint
CREATE INDEX "outbox_held_idx" ON "bus"."outbox" USING btree ("subscription_id","tenant_id","ordering_key","position") WHERE "bus"."outbox"."subscription_id" is not null;--> statement-breakpoint
-- Scheduled events with an ordering key are claimed apart from the others: neither claim reads the entries of the other. The
-- third index is for bus.cancel.
DROP INDEX "bus"."outbox_scheduled_idx";--> statement-breakpoint
CREATE INDEX "outbox_scheduled_idx" ON "bus"."outbox" USING btree ("event_id","available_at") WHERE "bus"."outbox"."available_at" is not null;--> statement-breakpoint
CREATE INDEX "outbox_due_idx" ON "bus"."outbox" USING btree ("available_at") WHERE "bus"."outbox"."available_at" is not null and "bus"."outbox"."ordering_key" is null;--> statement-breakpoint
CREATE INDEX "outbox_due_ordered_idx" ON "bus"."outbox" USING btree ("available_at","position") WHERE "bus"."outbox"."available_at" is not null and "bus"."outbox"."ordering_key" is not null;
--> statement-breakpoint

alter function bus.cancel(uuid, text) set enable_bitmapscan = off;
--> statement-breakpoint

drop function bus.enqueue_ordered(int, int, int, text[], text[], uuid[], int[]);
--> statement-breakpoint

-- Locks the rows of some keys of a subscription, in the order of their hashes, and makes those that are missing. Gives the
-- hashes of those it could not get: somebody else holds them longer than the caller's lock_timeout. That is waited for once
-- at most; then what is free is locked without waiting.
-- The caller holds the lock on the order (1651864320, 6): nobody else gives keys events, so nobody makes keys meanwhile.
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

-- Puts events at the end of their keys, in the order given, and gives idle keys a job. Blocked and parked keys keep what they
-- are given. It waits for nobody for long: a key whose row somebody else holds (a worker that was stopped, an operator) is
-- passed over, and so is one that has held events already, unless these are what was held (`retaken`). Their events are held:
-- they keep a row of the outbox, and a row of nulls in the answer says so. `patient`: 50 ms are waited for the first such row,
-- because most are held by a settlement that is about to commit.
create function bus.enqueue_ordered(
  for_subscription int, batch_size int, batch_bytes int,
  tenant_ids text[], ordering_keys text[], new_event_ids uuid[], payload_sizes int[], types text[], retaken boolean, patient boolean
) returns table (key_id bigint, job_id uuid, event_ids uuid[]) language plpgsql as $body$
#variable_conflict use_column
declare
  hashes uuid[] := array(
    select bus.ordering_key_hash(e.tenant_id, e.ordering_key)
    from unnest(tenant_ids, ordering_keys) with ordinality as e (tenant_id, ordering_key, ordinal) order by e.ordinal);
  refused uuid[] := '{}';
begin
  if not patient then
    perform set_config('lock_timeout', '1ms', true);
  end if;
  if not retaken and exists (select from bus.outbox o where o.subscription_id = for_subscription and o.ordering_key is not null) then
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
  -- Held again, they would come behind those of their key that are held still.
  if retaken and cardinality(refused) > 0 then
    raise exception 'the row of a key is locked' using errcode = 'lock_not_available';
  end if;

  -- Each key by itself, in its place in the index: a join may read all keys of the subscription instead.
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
          where k.subscription_id = for_subscription and k.key_hash = e.key_hash and k.state = 'flowing' and k.job_id is null
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

-- Takes some of the events that were held for a subscription out of the outbox again, the first ones of keys whose row is
-- free by now, or gone: of a thousand keys at most, a hundred events each, beginning behind a key that is given. A row
-- without an event says which key was the last one that was looked at, where there may be more.
-- Events of keys come only to who gets the lock on the order, which is held until the transaction ends; the rows of their keys
-- are held too, and are there. Of events without a key, those that another relay is at are passed over.
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
    -- From one key to the next, however many events each has.
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
        -- Some of each key: a key without events must not stay behind.
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
revoke execute on function
  bus.lock_ordered_keys(int, uuid[], text[], text[]),
  bus.enqueue_ordered(int, int, int, text[], text[], uuid[], int[], text[], boolean, boolean),
  bus.take_held_events(int, int, text, text)
from public;
--> statement-breakpoint

-- Planned for the ids it is given: a plan for any would lock every partition of the log, and wait where somebody holds one.
alter function bus.fulfilling_events(uuid[], jsonpath) set plan_cache_mode = force_custom_plan;
