-- Replaces functions of 0007, 0008, 0009 and 0012. These files were changed after databases had been migrated with them; the bodies below are
-- those of the changed files, so that all databases have the same.

-- The same of an event of the tenant. Null for an event of another tenant. Without what is not the tenant's own: subscriptions that do not
-- concern its type, predicates, instances, who paused a subscription or discarded a dead letter and why, errors that opened a circuit breaker, and counts that include
-- events of other tenants.
create or replace function bus.tenant_event_facts(of_event uuid, for_subscription text) returns jsonb language plpgsql stable security definer as $body$
declare
  facts jsonb;
begin
  if not exists (select from bus.events e where e.id = of_event and e.tenant_id = bus.current_tenant()) then
    return null;
  end if;
  facts := bus.event_facts(of_event, for_subscription);
  return (facts - 'relayCount') || jsonb_build_object('subscriptions', (
    select coalesce(jsonb_agg(
      (s.value - 'id' - 'service' - 'pausedBy' - 'pauseReason' - 'circuitReason' - 'registeredAt' - 'tenantConcurrency')
      || jsonb_build_object(
        'instances', (select coalesce(jsonb_agg('{}'::jsonb), '[]') from (select from jsonb_array_elements(s.value -> 'instances') limit 1) i),
        'tenantConcurrency', s.value -> 'tenantConcurrency',
        'declarations', (select jsonb_agg(d.value - 'where' - 'problem' - 'id' order by d.ordinality) from jsonb_array_elements(s.value -> 'declarations') with ordinality d),
        'delivery', case when jsonb_typeof(s.value -> 'delivery') = 'object' then ((s.value -> 'delivery') - 'instanceId')
          || jsonb_build_object('failure', case when jsonb_typeof(s.value -> 'delivery' -> 'failure') = 'object'
            then (s.value -> 'delivery' -> 'failure') - '{stack,instanceId,discardedBy,reason,replacedBy}'::text[] end) end,
        'job', case when jsonb_typeof(s.value -> 'job') = 'object' then (s.value -> 'job') - 'eventCount'
          - case when s.value -> 'job' ->> 'flowKey' in ('=' || bus.current_tenant(), '@' || bus.current_tenant()) then array[]::text[] else array['flowKey', 'jobsAhead', 'eventsAhead'] end end)
      order by s.ordinality), '[]')
    from jsonb_array_elements(facts -> 'subscriptions') with ordinality s
    where jsonb_typeof(s.value -> 'delivery') = 'object'
      or exists (select from jsonb_array_elements(s.value -> 'declarations') d where (d.value ->> 'matches')::boolean)));
end
$body$ set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Functions: events by their state for a subscription.

-- Events between two ids that are in a state for one of some subscriptions, newest first, at most so many: if it returns that many, there may
-- be more before the last one. Null if they are too many to be listed, and for states that only receipts know. `of_tenant` limits failing
-- events; the caller filters others. Only reads.
create or replace function bus.events_in_state(for_subscriptions int[], wanted text, of_tenant text, low uuid, high uuid, max_count int)
returns uuid[] language plpgsql stable as $body$
#variable_conflict use_column
declare
  states text[] := case wanted when 'dead' then array['dead', 'blocked', 'parked'] else array['retrying'] end;
  is_few boolean;
  ids uuid[];
  more uuid[];
  job_count bigint;
begin
  if wanted in ('dead', 'retrying') then
    if of_tenant is not null then
      is_few := (select count(*) <= max_count from (select from bus.failing f where f.tenant_id = of_tenant limit max_count + 1) f);
    else
      is_few := (
        select count(*) <= max_count from (
          select from unnest(for_subscriptions) as s (id) cross join unnest(states) as t (state)
          cross join lateral (
            select from bus.failing f where f.subscription_id = s.id and f.state = t.state
            order by f.subscription_id, f.state, f.fingerprint, f.failed_at limit max_count + 1) f
          limit max_count + 1) f);
    end if;
    if is_few and of_tenant is not null then
      ids := array(
        select f.event_id from bus.failing f
        where f.tenant_id = of_tenant and f.state = any (states) and f.subscription_id = any (for_subscriptions)
          and f.event_id >= low and f.event_id < high);
    elsif is_few then
      ids := array(
        select f.event_id from unnest(for_subscriptions) as s (id) cross join unnest(states) as t (state)
        cross join lateral (
          select f.event_id from bus.failing f where f.subscription_id = s.id and f.state = t.state
          order by f.subscription_id, f.state, f.fingerprint, f.failed_at limit max_count) f
        where f.event_id >= low and f.event_id < high);
    else
      ids := array(
        select f.event_id from unnest(for_subscriptions) as s (id)
        cross join lateral (
          select f.event_id from bus.failing f
          where f.subscription_id = s.id and f.state = any (states) and (of_tenant is null or f.tenant_id = of_tenant)
            and f.event_id >= low and f.event_id < high
          order by f.subscription_id desc, f.event_id desc limit max_count) f);
    end if;
    if wanted = 'dead' then
      more := array(
        select o.event_id from bus.ordered_keys k
        join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq
        where k.failed_at is not null and k.state = 'parked' and k.subscription_id = any (for_subscriptions) and (of_tenant is null or k.tenant_id = of_tenant)
        limit max_count);
      if cardinality(more) = max_count then
        return null;
      end if;
    end if;
  elsif wanted in ('waiting', 'delivering') then
    select array_agg(x.event_id::uuid), sum((r.job ->> 'jobs')::bigint) into ids, job_count
    from bus.read_each(array(
      select format($job$
        select %1$s as subscription_id, case when count(*) <= 50 then jsonb_agg(j.data -> 'eventIds') end as event_ids, count(*) as jobs
        from (select b.data from pgboss.job b where b.name = %2$L and b.state %3$s limit 51) j
      $job$, s.id, 'bus.' || s.name, case wanted when 'waiting' then '< ''active''' else '= ''active''' end)
      from bus.subscriptions s where s.id = any (for_subscriptions)
    )) as r (job)
    left join lateral (
      select e.event_id from jsonb_array_elements(coalesce(nullif(r.job -> 'event_ids', 'null'), '[]')) as l (list)
      cross join lateral jsonb_array_elements_text(l.list) as e (event_id)
      where e.event_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
        and (wanted <> 'waiting' or not exists (
          select from bus.failing f where f.subscription_id = (r.job ->> 'subscription_id')::int and f.event_id = e.event_id::uuid))
    ) x on true;
    if job_count > 50 then
      return null;
    end if;
    if wanted = 'waiting' then
      more := array(
        select o.event_id from unnest(for_subscriptions) as s (id)
        join bus.ordered_keys k on k.subscription_id = s.id and k.state <> 'parked'
        join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq
        where o.event_id is distinct from k.failed_event_id limit max_count);
      more := more || array(select o.event_id from bus.outbox o limit max_count);
      more := more || coalesce(ids, '{}');
      -- Each is looked up for each subscription.
      if cardinality(more) >= least(max_count, 500) then
        return null;
      end if;
      ids := '{}';
      more := array(select e from bus.events_with_state(more, for_subscriptions, wanted) e);
    end if;
  else
    return null;
  end if;
  return array(
    select e.id from (select distinct u.id from unnest(ids || more) as u (id) where u.id >= low and u.id < high) e
    order by e.id desc limit max_count);
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Dead letters by error, of the newest 100,000: most frequent first, at most 1,000 groups. `event_id` is the newest of a group, and the
-- message is that of its last attempt.
create or replace function bus.read_dead_by_error(of_subscription text default null, max_count int default 1000)
returns table (
  subscription text, fingerprint text, error_name text, error_code text, error_message text, dead_events int, tenant_count int,
  first_at timestamptz, last_at timestamptz, event_id uuid, is_partial boolean)
language plpgsql stable as $body$
#variable_conflict use_column
declare
  for_subscription int := (select s.id from bus.subscriptions s where s.name = of_subscription);
  of_one text := case when of_subscription is null then ' and f.subscription_id > 0' else format(' and f.subscription_id = %L', coalesce(for_subscription, 0)) end;
  groups jsonb;
begin
  -- Each case is a statement of its own, so that each has its index.
  execute format($groups$
    with dead as materialized (
      select f.subscription_id, f.fingerprint, f.tenant_id, f.failed_at from bus.failing f
      where f.state <> 'retrying' %s order by f.failed_at desc limit 100000
    ), by_tenant as (
      select d.subscription_id, d.fingerprint, d.tenant_id, count(*) as dead_events, min(d.failed_at) as first_at, max(d.failed_at) as last_at
      from dead d group by 1, 2, 3
    ), by_error as (
      select t.subscription_id, t.fingerprint, sum(t.dead_events) as dead_events, count(t.tenant_id) as tenant_count, min(t.first_at) as first_at,
        max(t.last_at) as last_at
      from by_tenant t group by 1, 2 order by 3 desc, 6 desc limit $1
    )
    select jsonb_agg(to_jsonb(g) || to_jsonb(n) || jsonb_build_object('is_partial', (select count(*) >= 100000 from dead)))
    from by_error g
    cross join lateral (
      select f.event_id, f.error_name, f.error_code from bus.failing f
      where f.subscription_id = g.subscription_id and f.state <> 'retrying' and f.failed_at = g.last_at
        and f.fingerprint is not distinct from g.fingerprint
      limit 1
    ) n
  $groups$, of_one) into groups using least(max_count, 1000);
  return query
  with newest as materialized (
    select g.* from jsonb_to_recordset(groups) as g (
      subscription_id int, fingerprint text, error_name text, error_code text, dead_events int, tenant_count int, first_at timestamptz,
      last_at timestamptz, event_id uuid, is_partial boolean)
  ), message as (
    select (r.found ->> 'subscription_id')::int as subscription_id, (r.found ->> 'event_id')::uuid as event_id, r.found ->> 'message' as message
    -- Month by month, and only the partitions of these events.
    from bus.read_each(array(
      select format($message$
        select distinct on (a.event_id, a.subscription_id) a.event_id, a.subscription_id, left(a.error_message, 300) as message
        from bus.attempts a where a.event_id = any (%L::uuid[]) and not a.succeeded
        order by a.event_id, a.subscription_id, a.ended_at desc
      $message$, array_agg(distinct n.event_id))
      from newest n group by date_trunc('month', to_timestamp(bus.uuid_ms(n.event_id) / 1000.0) at time zone 'utc')
    )) as r (found)
  )
  select s.name, n.fingerprint, n.error_name, n.error_code, m.message, n.dead_events, n.tenant_count, n.first_at, n.last_at, n.event_id, n.is_partial
  from newest n
  join bus.subscriptions s on s.id = n.subscription_id
  left join message m on m.subscription_id = n.subscription_id and m.event_id = n.event_id
  order by n.dead_events desc, n.last_at desc;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- The dead letters of the tenant that match a filter, without stack traces, at most a thousand.
create or replace function bus.tenant_dead_letters(filter jsonb, max_count int)
returns table (
  event_id uuid, subscription text, job_id uuid, attempts int, failures jsonb, dead_at timestamptz, tenant_id text, ordering_key text, key_state text,
  state text, type text, fingerprint text, place text)
language plpgsql stable security definer as $body$
begin
  if bus.current_tenant() is not null then
    return query
    select l.event_id, l.subscription, l.job_id, l.attempts, bus.without_stacks(l.failures), l.dead_at, l.tenant_id, l.ordering_key, l.key_state,
      l.state, l.type, l.fingerprint, l.place
    -- Whatever the filter is, it is one of this tenant.
    from bus.dead_letters(
      case when jsonb_typeof(filter) = 'object' then filter else '{}' end || jsonb_build_object('tenantId', bus.current_tenant()), least(max_count, 1000)) l;
  end if;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- The dead letters that match a filter, by error, of all subscriptions together. Most frequent first. `event_id` and `subscription` are of the
-- newest one of a group; tenants are counted up to 10,001. It looks at the latest 100,000 dead letters. Only reads.
create or replace function bus.dead_letter_groups(filter jsonb, max_count int)
returns table (
  fingerprint text, error_name text, error_code text, message text, letter_count bigint, first_at timestamptz, last_at timestamptz,
  subscriptions text[], tenant_count int, event_id uuid, subscription text)
language plpgsql stable as $body$
#variable_conflict use_column
declare
  groups jsonb;
  newest uuid[];
begin
  execute format($groups$
    select jsonb_agg(to_jsonb(g)) from (
      select p.fingerprint, p.error_name, p.error_code, sum(p.letter_count)::bigint as letter_count, min(p.first_at) as first_at, max(p.last_at) as last_at,
        array_agg(distinct p.subscription_id) as subscription_ids, least(10001, count(distinct p.tenant_id))::int as tenant_count
      from (
        select f.fingerprint, f.error_name, f.error_code, f.subscription_id, f.tenant_id, count(*) as letter_count,
          min(f.failed_at) as first_at, max(f.failed_at) as last_at
        from (select f.* from bus.failing f where %s order by f.failed_at desc limit 100000) f group by 1, 2, 3, 4, 5) p
      group by 1, 2, 3 order by 4 desc, 6 desc limit %s) g
  $groups$, bus.dead_letter_condition(filter), max_count) into groups;
  select jsonb_agg(g.value || to_jsonb(n)), array_agg(n.event_id) into groups, newest
  from jsonb_array_elements(groups) g
  cross join lateral (
    select f.event_id, f.subscription_id from bus.failing f
    where f.state <> 'retrying' and f.failed_at = (g.value ->> 'last_at')::timestamptz and f.fingerprint is not distinct from g.value ->> 'fingerprint'
      and f.subscription_id = any (bus.json_texts(g.value -> 'subscription_ids')::int[])
      and (filter ->> 'tenantId' is null or f.tenant_id = filter ->> 'tenantId')
    limit 1
  ) n;
  -- Only the partitions of these events are read.
  return query
  select g.fingerprint, g.error_name, g.error_code, m.message, g.letter_count, g.first_at, g.last_at,
    array(select s.name from bus.subscriptions s where s.id = any (g.subscription_ids) order by s.name collate "C"),
    g.tenant_count, g.event_id, (select s.name from bus.subscriptions s where s.id = g.subscription_id)
  from jsonb_to_recordset(groups) as g (
    fingerprint text, error_name text, error_code text, letter_count bigint, first_at timestamptz, last_at timestamptz, subscription_ids int[],
    tenant_count int, event_id uuid, subscription_id int)
  left join (
    select distinct on (a.event_id, a.subscription_id) a.event_id, a.subscription_id, a.error_message as message
    from bus.attempts a where a.event_id = any (newest) and not a.succeeded
    order by a.event_id, a.subscription_id, a.ended_at desc
  ) m on m.event_id = g.event_id and m.subscription_id = g.subscription_id
  order by g.letter_count desc, g.last_at desc;
end
$body$ set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Functions: copying an event.

-- Stores a copy of an event for one subscription, with other payload and metadata where these are given. The event is its cause. It is in
-- the log and not in the outbox: the caller delivers it. Runs as the owner of the log, so that an operator may call it, who may not publish.
-- Returns the bytes of its payload, as text. Null where the event is not in the log, or erased.
-- Locks: as an insert into the log. Repeating: the id is taken.
create or replace function bus.copy_event(copy uuid, original uuid, for_subscription int, new_payload jsonb, new_version int, new_metadata jsonb)
returns int language plpgsql security definer as $body$
declare
  last_position bigint;
  bytes int;
begin
  perform set_config('bus.expected_insert', '', true);
  insert into bus.events
    (id, tenant_id, type, source, subject, schema_version, payload, correlation_id, causation_id, ordering_key, metadata)
  select copy, e.tenant_id, e.type, e.source, e.subject, coalesce(new_version, e.schema_version), coalesce(new_payload, e.payload),
    coalesce(e.correlation_id, e.id::text), e.id, e.ordering_key, coalesce(new_metadata, e.metadata)
  -- Locked, so that bus.erase finds either the copy or an event that nobody copies any more.
  from (select e.* from bus.events e where e.id = original and e.erased_at is null for share) e
  returning octet_length(events.payload::text) into bytes;
  if bytes is null then
    return null;
  end if;
  -- The trigger of the log has put it into the outbox, for all subscriptions. Nobody has seen it there.
  last_position := currval('bus.outbox_position_seq');
  delete from bus.outbox o where o.position in (last_position, last_position + 2305843009213693952) and o.event_id = copy;
  if not found then
    raise exception 'The copy of the event is not in bus.outbox: a trigger or a rule on it changes its rows' using errcode = 'BUS02';
  end if;
  insert into bus.event_copies (event_id, subscription_id, original_id) values (copy, for_subscription, original);
  return bytes;
end
$body$ set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- What keeps the events of a range from being dropped: what is undelivered of them anywhere, counted up to 10,001 of each kind.
--   undispatched    in the outbox, also held for a subscription
--   scheduled       in the outbox, not due yet
--   ordered         waiting behind the earlier events of their key
--   waiting         in a job of the queue, for its first attempt or running
--   retrying, dead, blocked, parked   in bus.failing; dead letters that failed before dead_before do not count
--   operation       a replay, a redrive or the like is under way, which may select them
-- An event moves from the outbox to a job and from there to bus.failing, so they are read in this order, each by a statement of its own.
--
-- due_until is what bus.scheduled_until says: the job of a scheduled event is found by the time it was due. Jobs of releases before this one
-- have ids that do not say when their events were published, so all jobs are read for events from before it was installed.
-- Only reads.
create or replace function bus.range_holds(lower_bound uuid, upper_bound uuid, due_until timestamptz default null, dead_before timestamptz default null)
returns table (kind text, subscription text, held_count bigint, detail text) language plpgsql volatile security definer as $body$
#variable_conflict use_column
declare
  first_job uuid := bus.uuid_v7_floor(to_timestamp((bus.uuid_ms(lower_bound) - 16384) / 1000.0));
  last_job uuid := greatest(upper_bound::text, coalesce(bus.uuid_v7_floor(due_until + interval '1 millisecond')::text, ''))::uuid;
  is_before_ids boolean := (select to_timestamp(bus.uuid_ms(lower_bound) / 1000.0) < s.created_at from bus.retention_state s);
begin
  return query
  select 'undispatched', null::text, count(*), null::text
  from (select from bus.outbox o where o.available_at is null and o.event_id >= lower_bound and o.event_id < upper_bound limit 10001) o having count(*) > 0;
  return query
  select 'scheduled', null::text, count(*), null::text
  from (select from bus.outbox o where o.available_at is not null and o.event_id >= lower_bound and o.event_id < upper_bound limit 10001) o having count(*) > 0;
  return query
  select 'ordered', s.name, count(*), null::text
  from (
    select k.subscription_id from bus.ordered_events o join bus.ordered_keys k on k.id = o.key_id
    where o.event_id >= lower_bound and o.event_id < upper_bound and o.seq > k.done_seq limit 10001) w
  join bus.subscriptions s on s.id = w.subscription_id
  group by s.name;
  return query
  select 'waiting', s.name, (r.jobs ->> 'held')::bigint, null::text
  from bus.read_each(array(
    select format($job$
      select %1$s as subscription_id, count(*) as held from (
        select from pgboss.job b
        where b.name = %2$L and b.state < 'completed' and %6$s
          and exists (
            select from jsonb_array_elements_text(case jsonb_typeof(b.data -> 'eventIds') when 'array' then b.data -> 'eventIds' else '[]' end) as e (id)
            where e.id collate "C" >= %4$L and e.id collate "C" < %5$L)
        limit 10001) j
      having count(*) > 0
    $job$, s.id, 'bus.' || s.name, null, lower_bound, upper_bound,
      case when is_before_ids then 'true' else format('b.id >= %L and b.id < %L', first_job, last_job) end)
    from bus.subscriptions s)) as r (jobs)
  join bus.subscriptions s on s.id = (r.jobs ->> 'subscription_id')::int;
  return query
  select f.state, s.name, f.n, null::text
  from bus.subscriptions s
  cross join lateral (
    select f.state, count(*) as n from (
      select f.state from bus.failing f
      where f.subscription_id = s.id and f.event_id >= lower_bound and f.event_id < upper_bound
        and (f.state <> 'dead' or dead_before is null or f.failed_at >= dead_before)
      limit 10001) f
    group by f.state) f;
  if dead_before is not null then
    -- Dead letters that are redriven: their jobs have any id, and remember the dead letter.
    return query
    select 'waiting', s.name, (r.jobs ->> 'held')::bigint, null::text
    from bus.read_each(array(
      select format($job$
        select %1$s as subscription_id, count(*) as held from (
          select from bus.failing f
          where f.subscription_id = %1$s and f.event_id >= %3$L and f.event_id < %4$L and f.state = 'dead' and f.failed_at < %5$L
            and exists (select from pgboss.job b where b.name = %2$L and b.source_root_id = f.job_id and b.state < 'completed')
          limit 10001) j
        having count(*) > 0
      $job$, s.id, 'bus.' || s.name, lower_bound, upper_bound, dead_before)
      from bus.subscriptions s
      where exists (select from bus.failing f where f.subscription_id = s.id and f.event_id >= lower_bound and f.event_id < upper_bound))) as r (jobs)
    join bus.subscriptions s on s.id = (r.jobs ->> 'subscription_id')::int;
  end if;
  return query
  select 'operation', null::text, count(*), string_agg(o.kind || ' ' || o.id, ', ' order by o.id)
  from bus.operations o where o.state in ('running', 'paused', 'stopped') and (o.kind in ('redrive', 'discard', 'replay', 'catch-up') or (o.kind = 'remove' and o.options ->> 'moveTo' is not null))
  having count(*) > 0;
end
$body$ set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan;
