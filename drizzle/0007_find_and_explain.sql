-- Finding events by what is known of them, and explaining where one is. Every read is answered by an index, or stops after a number of rows
-- that its caller gives. src/operations/event-search.ts and src/operations/explain.ts call these functions.
--
-- No index is added: the log is found by its own, by the keys of bus.event_keys, by the index of bus.failing, and by the ids of jobs.

-- Functions: where an event is.

-- The rows of the outbox of an event: its own, and those that are held for one subscription. A row without a due time is searched for by
-- its position, because positions and ids both ascend with time: among the 50,000 rows from a minute before the event was published. So an
-- event with an id that somebody else made, of another time, may be missed. Only reads.
create function bus.find_in_outbox(of_event uuid, of_tenant text, of_key text) returns setof bus.outbox language plpgsql stable as $body$
declare
  event_ms bigint := bus.uuid_ms(of_event);
  -- Positions of events without a key, and of events with one.
  range_starts constant bigint[] := array[0, 2305843009213693952];
  range_ends constant bigint[] := array[2305843009213693952, 4611686018427387904];
  low bigint;
  high bigint;
  middle bigint;
  probed record;
begin
  return query select o.* from bus.outbox o where o.event_id = of_event and o.available_at is not null;
  return query
  select h.* from bus.subscriptions s
  cross join lateral (
    select o.* from bus.outbox o
    where o.subscription_id = s.id and o.tenant_id = of_tenant and o.ordering_key is not distinct from of_key
    order by o.position limit 10000
  ) h
  where h.event_id = of_event;
  for n in 1 .. 2 loop
    select o.position into low from bus.outbox o where o.position >= range_starts[n] and o.position < range_ends[n] order by o.position limit 1;
    continue when not found;
    select o.position into high from bus.outbox o where o.position >= low and o.position < range_ends[n] order by o.position desc limit 1;
    while low < high loop
      middle := low + (high - low) / 2;
      select o.position, bus.uuid_ms(o.event_id) as ms into probed from bus.outbox o
      where o.position >= middle and o.position <= high order by o.position limit 1;
      if found and probed.ms < event_ms - 60000 then
        low := probed.position + 1;
      else
        high := middle;
      end if;
    end loop;
    return query
    select r.* from (
      select o.* from bus.outbox o where o.position >= low and o.position < range_ends[n] order by o.position limit 50000) r
    where r.event_id = of_event;
  end loop;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- The job of an event in each of some subscriptions, if one is waiting or active there, as bus.event_deliveries finds it. `ahead_count` are
-- the events of the jobs before it in its flow, counted up to 200 jobs: see src/delivery/routing/plan-jobs.ts. Only reads.
create function bus.event_jobs(of_event uuid, for_subscriptions int[]) returns setof jsonb language plpgsql stable as $body$
declare
  of_tenant text;
  of_key text;
  due timestamptz;
  event_ms bigint := bus.uuid_ms(of_event);
  moments bigint[] := array[event_ms];
begin
  select e.tenant_id, e.ordering_key, e.available_at into of_tenant, of_key, due from bus.events e where e.id = of_event;
  if due is not null and isfinite(due) then
    moments := moments || floor(extract(epoch from due) * 1000)::bigint;
  end if;
  return query
  select r from bus.read_each(array(
    select format($job$
      select %1$s as "subscriptionId", q.id, q.state::text as state, q.start_after as "startAfter", q.started_on as "startedAt",
        q.heartbeat_on as "heartbeatAt", q.heartbeat_seconds as "heartbeatSeconds", q.singleton_key as "flowKey", q.data ? 'declinedBy' as "isDeclined",
        jsonb_array_length(q.data -> 'eventIds') as "eventCount", a.jobs as "jobsAhead", a.events as "eventsAhead"
      from (
        select b.* from pgboss.job b where b.name = %2$L and b.state < 'completed' and %3$s limit 1
      ) q
      cross join lateral (
        select count(*) as jobs, coalesce(sum(jsonb_array_length(f.data -> 'eventIds')), 0) as events
        from (
          select b.data, b.created_on, b.priority, b.id from pgboss.job b
          where b.name = %2$L and b.state < 'active' and b.singleton_key = q.singleton_key and b.created_on <= q.created_on and q.state < 'active'
          order by b.created_on limit 201
        ) f
        where f.id <> q.id and (f.created_on < q.created_on or f.priority > q.priority)
      ) a
    $job$, c.id, c.queue, c.condition)
    from (
      select s.id, 'bus.' || s.name as queue,
        format('b.id in (select x.id from pgboss.job x where x.name = %1$L and x.id = %2$L
          union all select x.id from pgboss.job x where x.name = %1$L and x.source_root_id = %2$L)', 'bus.' || s.name, f.job_id) as condition
      from bus.subscriptions s join bus.failing f on f.subscription_id = s.id and f.event_id = of_event
      where s.id = any (for_subscriptions)
      union all
      select s.id, 'bus.' || s.name, format('b.id = %L and b.data -> ''eventIds'' ? %L', k.job_id, of_event)
      from bus.subscriptions s join bus.ordered_keys k on k.subscription_id = s.id and k.key_hash = bus.ordering_key_hash(of_tenant, of_key)
      where s.id = any (for_subscriptions) and k.job_id is not null
        and not exists (select from bus.failing f where f.subscription_id = s.id and f.event_id = of_event)
      union all
      select s.id, 'bus.' || s.name,
        format('b.id >= bus.uuid_v7_floor(to_timestamp(%1$s::float8 / 1000)) and b.id < bus.uuid_v7_floor(to_timestamp((%2$s + 1)::float8 / 1000))
          and bus.job_may_hold(b.id, %2$s) and b.data -> ''eventIds'' ? %3$L', m.event_ms - 16384, m.event_ms, of_event)
      from bus.subscriptions s cross join unnest(moments) as m (event_ms)
      where s.id = any (for_subscriptions) and not exists (select from bus.failing f where f.subscription_id = s.id and f.event_id = of_event)
    ) c
  )) as r;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Whether a payload satisfies a predicate: true, false, or null where the predicate cannot judge it, and then why, without values of the
-- payload. Only reads.
create function bus.judge_payload(payload jsonb, predicate text, out result boolean, out problem text) language plpgsql stable as $body$
begin
  result := payload @@ predicate::jsonpath;
  if result is null then
    perform jsonb_path_match(payload, predicate::jsonpath);
  end if;
exception when others then
  problem := sqlstate || ': ' || regexp_replace(sqlerrm, '"[^"]*"', '"…"', 'g');
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- All that is known of where an event is, for one subscription or for all: src/operations/explain.ts makes sentences of it. Null if the event
-- is not in the log. Everything is looked up by index. Only reads.
create function bus.event_facts(of_event uuid, for_subscription text) returns jsonb language plpgsql stable as $body$
#variable_conflict use_column
declare
  event record;
  in_outbox jsonb;
  held int[];
  details jsonb;
  jobs jsonb;
  each_job jsonb;
  judged record;
begin
  select e.tenant_id, e.type, e.ordering_key, e.available_at, e.erased_at, e.payload,
    (select c.cancelled_at from bus.cancellations c where c.event_id = of_event) as cancelled_at
  into event from bus.events e where e.id = of_event;
  if not found then
    return null;
  end if;
  select jsonb_agg(jsonb_build_object('availableAt', o.available_at)) filter (where o.subscription_id is null),
    array_agg(o.subscription_id) filter (where o.subscription_id is not null)
  into in_outbox, held
  from bus.find_in_outbox(of_event, event.tenant_id, event.ordering_key) o;
  select jsonb_object_agg(s.id, f.fact) into details
  from bus.subscriptions s
  left join bus.event_deliveries(of_event) d on d.subscription = s.name
  cross join lateral (
    select array_agg(x.id) as live, coalesce(jsonb_agg(jsonb_build_object('id', i.id, 'service', i.service, 'host', i.host, 'pid', i.pid,
      'version', i.version, 'inFlightCount', i.in_flight_count) order by i.id), '[]') as instances
    from bus.instances i cross join lateral unnest(i.declarations) as x (id)
    join bus.declarations c on c.id = x.id and c.subscription_id = s.id
    where i.seen_at > clock_timestamp() - interval '60 seconds'
  ) l
  cross join lateral (
    select array(
      select jsonb_build_object('id', c.id, 'patterns', c.patterns, 'where', c."where", 'hasWhere', c."where" is not null, 'isActive', c.retired_at is null,
        'isLive', coalesce(c.id = any (l.live), false),
        'matches', exists (select from unnest(c.patterns) as p (pattern) where bus.pattern_matches(p.pattern, event.type)))
      from (
        select c.id, c.patterns, c."where", c.retired_at from bus.declarations c where c.subscription_id = s.id
        union all
        -- Registered by hand.
        select null, s.patterns, s."where", null where not exists (select from bus.declarations c where c.subscription_id = s.id)
      ) c
      order by c.id) as declarations
  ) v
  left join lateral (
    select jsonb_build_object('state', k.state, 'failedEventId', k.failed_event_id, 'failedAt', k.failed_at, 'orderingKey', k.ordering_key,
      'aheadCount', (
        select count(*) from (
          select from bus.ordered_events b where b.key_id = k.id and b.seq > k.done_seq and b.seq < o.seq limit 10001) b),
      'firstEventId', (select b.event_id from bus.ordered_events b where b.key_id = k.id and b.seq > k.done_seq order by b.seq limit 1)) as fact
    from bus.ordered_keys k join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq
    where k.subscription_id = s.id and k.key_hash = bus.ordering_key_hash(event.tenant_id, event.ordering_key) and o.event_id = of_event
      and d.state is distinct from 'delivered'
    limit 1
  ) k on true
  cross join lateral (
    select jsonb_build_object('id', s.id, 'name', s.name, 'service', s.service, 'isOrdered', s.options -> 'ordered', 'tenantConcurrency', s.options -> 'tenantConcurrency',
      'pausedAt', s.paused_at, 'pausedBy', s.paused_by, 'pauseReason', s.pause_reason, 'circuitOpenedAt', s.circuit_opened_at,
      'circuitReason', s.circuit_reason, 'circuitProbeAt', s.circuit_probe_at, 'uncoveredSince', s.uncovered_since, 'registeredAt', s.created_at,
      'instances', l.instances, 'declarations', to_jsonb(v.declarations), 'key', k.fact, 'isHeld', coalesce(s.id = any (held), false),
      'delivery', case when d.state is not null then jsonb_build_object('state', d.state, 'attempts', d.attempts, 'failure', d.failure - 'stack',
        'dueAt', d.due_at, 'settledAt', d.delivered_at, 'durationMs', d.duration_ms, 'timeline', bus.timeline_for_tenant(d.timeline),
        'instanceId', d.timeline -> -1 -> 'instanceId') end) as fact
  ) f
  where for_subscription is null or s.name = for_subscription;
  -- Of those that wait or are delivered, the jobs; of those that never had it, what their predicates say.
  for each_job in
    select j from bus.event_jobs(of_event, array(
      select n.key::int from jsonb_each(coalesce(details, '{}')) n
      where n.value -> 'delivery' ->> 'state' in ('waiting', 'delivering', 'retrying'))) as j
  loop
    details := jsonb_set(details, array[each_job ->> 'subscriptionId', 'job'], each_job);
  end loop;
  for judged in
    select n.key, jsonb_agg(c.value || jsonb_build_object('result', j.result, 'problem', j.problem) order by c.ordinality) as declarations
    from jsonb_each(coalesce(details, '{}')) n
    cross join lateral jsonb_array_elements(n.value -> 'declarations') with ordinality c
    left join lateral bus.judge_payload(event.payload, c.value ->> 'where') j
      on (c.value ->> 'matches')::boolean and c.value ->> 'where' is not null and event.erased_at is null
    where n.value ->> 'delivery' is null
    group by n.key
  loop
    details := jsonb_set(details, array[judged.key, 'declarations'], judged.declarations);
  end loop;
  return jsonb_build_object('now', clock_timestamp(), 'type', event.type, 'tenantId', event.tenant_id, 'orderingKey', event.ordering_key,
    'availableAt', case when isfinite(event.available_at) then event.available_at end, 'erasedAt', event.erased_at, 'cancelledAt', event.cancelled_at,
    'outbox', in_outbox -> 0,
    'relayCount', (
      select count(*) from bus.instances i
      where i.seen_at > clock_timestamp() - interval '60 seconds' and i.relay not in ('stopped', 'stopping')),
    'subscriptions', coalesce((select jsonb_agg(n.value order by n.value ->> 'name' collate "C") from jsonb_each(coalesce(details, '{}')) n), '[]'));
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- The same of an event of the tenant. Null for an event of another tenant. Without what is not the tenant's own: subscriptions that do not
-- concern its type, predicates, instances, who paused a subscription or discarded a dead letter and why, errors that opened a circuit breaker, and counts that include
-- events of other tenants.
create function bus.tenant_event_facts(of_event uuid, for_subscription text) returns jsonb language plpgsql stable security definer as $body$
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
create function bus.events_in_state(for_subscriptions int[], wanted text, of_tenant text, low uuid, high uuid, max_count int)
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

-- Which of some events are in a state for one of some subscriptions. Each is looked up: give it some hundreds at most. Only reads.
create function bus.events_with_state(of_events uuid[], for_subscriptions int[], wanted text) returns setof uuid language plpgsql stable as $body$
#variable_conflict use_column
declare
  candidates uuid[];
  found_ids uuid[];
  low uuid;
  high uuid;
  subscription record;
begin
  if cardinality(of_events) = 0 then
    return;
  end if;
  if wanted = 'waiting' then
    -- Not dispatched yet: it waits for all of them.
    found_ids := array(
      select o.event_id from (
        (select o.event_id from bus.outbox o where o.position between 0 and 2305843009213693951 order by o.position desc limit 5000)
        union all
        (select o.event_id from bus.outbox o where o.position between 2305843009213693952 and 4611686018427387903 order by o.position desc limit 5000)
        union all
        select o.event_id from unnest(of_events) as e (id) join bus.outbox o on o.event_id = e.id and o.available_at is not null
        union all
        select h.event_id from unnest(for_subscriptions) as s (id)
        cross join lateral (select o.event_id from bus.outbox o where o.subscription_id = s.id limit 5000) h
      ) o
      where o.event_id = any (of_events)
        -- Where it is not wanted by any pattern it waits for nobody.
        and exists (
          select from bus.events e
          join bus.subscriptions s on s.id = any (for_subscriptions)
          cross join lateral (
            select unnest(s.patterns) union all
            select unnest(d.patterns) from bus.declarations d where d.subscription_id = s.id and d.retired_at is null) as p (pattern)
          where e.id = o.event_id and bus.pattern_matches(p.pattern, e.type)));
    return query select unnest(found_ids);
  end if;
  for subscription in select s.id, s.name, s.options -> 'ordered' = 'true' as ordered from bus.subscriptions s where s.id = any (for_subscriptions) loop
    if wanted in ('dead', 'retrying') then
      return query
      select f.event_id from bus.failing f
      where f.subscription_id = subscription.id and f.event_id = any (of_events) and (f.state = 'retrying') = (wanted = 'retrying');
      if wanted = 'dead' then
        return query
        select e.id from bus.events e
        join bus.ordered_keys k on k.subscription_id = subscription.id and k.key_hash = bus.ordering_key_hash(e.tenant_id, e.ordering_key) and k.state = 'parked'
        join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq and o.event_id = e.id
        where e.id = any (of_events) and e.ordering_key is not null;
      end if;
    elsif wanted in ('expired', 'erased', 'discarded') then
      return query
      select r.event_id from bus.receipts r
      where r.subscription_id = subscription.id and r.event_id = any (of_events) 
        and case wanted
          when 'erased' then r.erased
          when 'discarded' then r.discard_id is not null
          else r.expired and r.erased is not true and r.discard_id is null end;
    elsif wanted = 'delivered' then
      return query
      select e.id from bus.received_events(subscription.id, of_events) as e (id)
      except
      select r.event_id from bus.receipts r where r.subscription_id = subscription.id and r.event_id = any (of_events) and (r.expired or r.erased);
    else
      candidates := array(
        select unnest(of_events)
        except select e.id from bus.received_events(subscription.id, of_events) as e (id)
        except select f.event_id from bus.failing f where f.subscription_id = subscription.id and f.event_id = any (of_events) and wanted = 'waiting');
      continue when cardinality(candidates) = 0;
      execute format($job$
        select array_agg(m.id) from (
          select e.id, bus.uuid_ms(e.id) as ms from unnest($1) as e (id)
          union all
          -- Scheduled: its job says when it was due.
          select v.id, (extract(epoch from v.available_at) * 1000)::bigint from bus.events v where v.id = any ($1) and isfinite(v.available_at)
        ) m
        cross join lateral (
          select from pgboss.job b
          where b.name = %1$L and b.state %2$s
            and b.id >= bus.uuid_v7_floor(to_timestamp((m.ms - 16384)::float8 / 1000)) and b.id < bus.uuid_v7_floor(to_timestamp((m.ms + 1)::float8 / 1000))
            and bus.job_may_hold(b.id, m.ms) and b.data -> 'eventIds' ? m.id::text
          order by b.name, b.id limit 1
        ) b
      $job$, 'bus.' || subscription.name, case wanted when 'waiting' then '< ''active''' else '= ''active''' end, subscription.id)
      into found_ids using candidates;
      return query select unnest(found_ids);
      if wanted = 'delivering' then
        -- Another attempt, with a job of its own.
        execute format($job$
          select array_agg(f.event_id) from bus.failing f
          cross join lateral (select from pgboss.job b where b.name = %1$L and b.id = f.job_id and b.state = 'active' limit 1) b
          where f.subscription_id = %2$s and f.event_id = any ($1)
        $job$, 'bus.' || subscription.name, subscription.id)
        into found_ids using candidates;
        return query select unnest(found_ids);
      end if;
      if subscription.ordered then
        -- The events of a key wait in their line; the first ones may be with a worker.
        execute format($job$
          select array_agg(e.id) from bus.events e
          join bus.ordered_keys k on k.subscription_id = %3$s and k.key_hash = bus.ordering_key_hash(e.tenant_id, e.ordering_key) and k.state <> 'parked'
          join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq and o.event_id = e.id
          where e.id = any ($1) and e.ordering_key is not null and %2$L = case when exists (
            select from pgboss.job b where b.name = %1$L and b.id = k.job_id and b.state = 'active' and b.data -> 'eventIds' ? e.id::text) then 'delivering' else 'waiting' end
        $job$, 'bus.' || subscription.name, wanted, subscription.id)
        into found_ids using candidates;
        return query select unnest(found_ids);
      end if;
    end if;
  end loop;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- The same two for the tenant that is set: its own events alone.
create function bus.tenant_events_in_state(for_subscriptions int[], wanted text, of_tenant text, low uuid, high uuid, max_count int)
returns uuid[] language plpgsql stable security definer as $body$
declare
  ids uuid[] := bus.events_in_state(for_subscriptions, wanted, bus.current_tenant(), low, high, max_count);
begin
  return case when ids is not null then
    array(select e.id from bus.events e where e.id = any (ids) and e.tenant_id = bus.current_tenant() order by e.id desc) end;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint
create function bus.tenant_events_with_state(of_events uuid[], for_subscriptions int[], wanted text) returns setof uuid
language plpgsql stable security definer as $body$
declare
  own uuid[] := array(select e.id from bus.events e where e.id = any (of_events) and e.tenant_id = bus.current_tenant());
begin
  return query select s.id from bus.events_with_state(own[1:1000], for_subscriptions, wanted) as s (id);
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- The ids of a subscription, or of all. For the calls above, also by a tenant, who sees only the numbers.
create function bus.subscription_ids(of_name text) returns int[] language sql stable security definer set search_path = pg_catalog, pg_temp
return (select coalesce(array_agg(s.id order by s.id), '{}') from bus.subscriptions s where of_name is null or s.name = of_name);
--> statement-breakpoint

-- Functions: ids of jobs.

-- The job with an id, in any queue of pg-boss, and the dead letters and redriven jobs that come from it, at most so many. Reads table after
-- table, because a job is found by its queue and its id.
create function bus.find_jobs(of_id uuid, max_count int)
returns table (queue text, job_id uuid, state text, source_root_id uuid, event_ids jsonb, event_count int) language plpgsql stable as $body$
begin
  return query
  select r.job ->> 'name', (r.job ->> 'id')::uuid, r.job ->> 'state', (r.job ->> 'source_root_id')::uuid, nullif(r.job -> 'event_ids', 'null'),
    (r.job ->> 'event_count')::int
  from bus.read_each(array(
    select format($job$
      select j.name, j.id, j.state::text as state, j.source_root_id, jsonb_array_length(l.ids) as event_count,
        (select jsonb_agg(f.id) from (select e.id from jsonb_array_elements(l.ids) with ordinality as e (id, ordinality) order by e.ordinality limit 10) f) as event_ids
      from (
        (select b.* from pgboss.%1$I b where b.name = any (%2$L::text[]) and b.id = %3$L limit %4$s)
        union all
        (select b.* from pgboss.%1$I b where b.source_root_id = %3$L limit %4$s)
      ) j
      cross join lateral (select case when jsonb_typeof(j.data -> 'eventIds') = 'array' then j.data -> 'eventIds' end as ids) l
      limit %4$s
    $job$, q.table_name, array_agg(q.name)::text, of_id, max_count)
    from pgboss.queue q group by q.table_name
  )) as r (job)
  limit max_count;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off;
--> statement-breakpoint

-- Privileges. drizzle/roles.sql grants the rest to roles, by name.

revoke execute on function
  bus.find_in_outbox(uuid, text, text), bus.event_jobs(uuid, int[]), bus.judge_payload(jsonb, text), bus.event_facts(uuid, text),
  bus.tenant_event_facts(uuid, text), bus.events_in_state(int[], text, text, uuid, uuid, int), bus.events_with_state(uuid[], int[], text),
  bus.tenant_events_in_state(int[], text, text, uuid, uuid, int), bus.tenant_events_with_state(uuid[], int[], text),
  bus.subscription_ids(text), bus.find_jobs(uuid, int)
from public;
