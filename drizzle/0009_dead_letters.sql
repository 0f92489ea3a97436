-- Dead letters: found by what they have in common, redriven, discarded, copied with another payload, and announced.
--
-- * A dead letter is discarded: it has a receipt, which names the record in bus.audit, or the operation, that says who did it and why.
-- * bus.event_copies: a copy of an event is in the log, for one subscription alone.
-- * bus.dead_letter_calls and bus.dead_letter_alerts: what is to be told to the callbacks of subscriptions, until they have been told.

-- Tables. src/delivery/ledger/schema.ts describes their columns.

alter table bus.receipts add column discard_id uuid;
--> statement-breakpoint
create table bus.event_copies (
  event_id uuid primary key not null,
  subscription_id integer not null,
  original_id uuid not null,
  created_at timestamp (6) with time zone default now() not null
);
--> statement-breakpoint
create table bus.dead_letter_calls (
  subscription_id integer not null,
  event_id uuid not null,
  dead_at timestamp (6) with time zone default now() not null,
  state text not null,
  attempts smallint not null,
  tenant_id text,
  error_count integer default 0 not null,
  next_call_at timestamp (6) with time zone default now() not null,
  constraint dead_letter_calls_subscription_id_event_id_dead_at_pk primary key (subscription_id, event_id, dead_at)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
--> statement-breakpoint
create table bus.dead_letter_alerts (
  subscription_id integer primary key not null,
  raised_at timestamp (6) with time zone default now() not null,
  first_at timestamp (6) with time zone not null,
  error_count integer default 0 not null,
  next_call_at timestamp (6) with time zone
);
--> statement-breakpoint

-- Indexes.

create index failing_fingerprint_idx on bus.failing (fingerprint, failed_at, event_id) where state <> 'retrying';
--> statement-breakpoint
create index event_copies_original_idx on bus.event_copies (original_id);
--> statement-breakpoint
create index dead_letter_calls_due_idx on bus.dead_letter_calls (subscription_id, next_call_at);
--> statement-breakpoint

-- Row security. A tenant reads none of them.

alter table bus.event_copies enable row level security;
--> statement-breakpoint
alter table bus.dead_letter_calls enable row level security;
--> statement-breakpoint
alter table bus.dead_letter_alerts enable row level security;
--> statement-breakpoint

-- Functions: which dead letters a filter means. A filter is an object with any of: subscription (its name), subscriptionId, tenantId,
-- fingerprint, errorName, errorCode, states, from (inclusive) and to (exclusive), through (inclusive): when it became one; eventIds, with a
-- subscription. `type` is not in bus.failing: the callers below look it up.

-- The texts of a list. Null for anything else.
create function bus.json_texts(list jsonb) returns text[] language sql immutable parallel safe
return case jsonb_typeof(list) when 'array' then array(select jsonb_array_elements_text(list)) end;
--> statement-breakpoint

-- A filter as a condition on `f`, a row of bus.failing. Its values are constants, so that each statement gets the plan and the index that
-- suit them. Only reads.
create function bus.dead_letter_condition(filter jsonb) returns text language plpgsql stable as $body$
declare
  subscription_id int := (filter ->> 'subscriptionId')::int;
begin
  if filter ->> 'subscription' is not null then
    -- No subscription has the id 0.
    subscription_id := coalesce((select s.id from bus.subscriptions s where s.name = filter ->> 'subscription'), 0);
  end if;
  return concat(
    'f.state <> ''retrying''',
    -- Below 0 are replays: what died in one was delivered before.
    coalesce(' and f.subscription_id = ' || subscription_id, ' and f.subscription_id > 0'),
    ' and f.tenant_id = ' || quote_literal(filter ->> 'tenantId'),
    ' and f.fingerprint = ' || quote_literal(filter ->> 'fingerprint'),
    ' and f.error_name = ' || quote_literal(filter ->> 'errorName'),
    ' and f.error_code = ' || quote_literal(filter ->> 'errorCode'),
    ' and f.state = any (' || quote_literal(bus.json_texts(filter -> 'states')) || '::text[])',
    ' and f.failed_at >= ' || quote_literal((filter ->> 'from')::timestamptz),
    ' and f.failed_at < ' || quote_literal((filter ->> 'to')::timestamptz),
    ' and f.failed_at <= ' || quote_literal((filter ->> 'through')::timestamptz),
    ' and f.event_id = any (' || quote_literal(bus.json_texts(filter -> 'eventIds')::uuid[]) || '::uuid[])');
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- The events that are dead letters and match a filter, in the order in which they became that, after a position (afterTime, afterEvent,
-- afterSubscription in the filter). Not those that are parked behind one, which have not failed. Only reads.
create function bus.dead_letter_rows(filter jsonb, max_count int) returns setof bus.failing language plpgsql stable as $body$
begin
  return query execute format(
    'select f.* from bus.failing f where %s and (f.failed_at, f.event_id, f.subscription_id) > (%L::timestamptz, %L::uuid, %s)
     order by f.failed_at, f.event_id, f.subscription_id limit %s',
    bus.dead_letter_condition(filter), coalesce((filter ->> 'afterTime')::timestamptz, '-infinity'),
    coalesce((filter ->> 'afterEvent')::uuid, '00000000-0000-0000-0000-000000000000'), coalesce((filter ->> 'afterSubscription')::int, 0),
    max_count);
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off;
--> statement-breakpoint

-- How many dead letters of each subscription match a filter, and how many of them hold a key. It counts up to so many. Only reads.
create function bus.count_dead_letters(filter jsonb, max_count int)
returns table (subscription_id int, letter_count bigint, key_count bigint) language plpgsql stable as $body$
begin
  return query execute format(
    'select f.subscription_id, count(*), count(*) filter (where f.state in (''blocked'', ''parked''))
     from (select f.subscription_id, f.state from bus.failing f where %s limit %s) f group by 1 order by 1',
    bus.dead_letter_condition(filter), max_count);
end
$body$ set search_path = pg_catalog, pg_temp set jit = off;
--> statement-breakpoint

-- The dead letters that match a filter, oldest first, with their failed attempts. One that somebody has redriven or deleted through pg-boss
-- is left out. Those that are parked behind one have no attempts, and match no error. With `types`, at most 10,000 are looked at. Only reads.
create function bus.dead_letters(filter jsonb, max_count int)
returns table (
  event_id uuid, subscription text, job_id uuid, attempts int, failures jsonb, dead_at timestamptz, tenant_id text, ordering_key text, key_state text,
  state text, type text, fingerprint text, place text)
language plpgsql stable as $body$
#variable_conflict use_column
declare
  wanted_types text[] := bus.json_texts(filter -> 'types');
  step_count int := case when wanted_types is null then max_count else greatest(max_count, 1000) end;
  page jsonb := filter;
  page_events uuid[];
  page_subscriptions int[];
  page_queues text[];
  page_jobs uuid[];
  last_time timestamptz;
  dead_table text;
  present text[];
  found_in_table text[];
  types jsonb;
  found_events uuid[];
  page_count int;
  seen_count int := 0;
  letter_events uuid[] := '{}';
  letter_subscriptions int[] := '{}';
  -- Nothing after this time was looked at.
  through_time timestamptz := 'infinity';
  parked_events uuid[] := '{}';
  for_subscription int := (filter ->> 'subscriptionId')::int;
  after_time timestamptz := coalesce((filter ->> 'afterTime')::timestamptz, '-infinity');
  after_event uuid := coalesce((filter ->> 'afterEvent')::uuid, '00000000-0000-0000-0000-000000000000');
  after_subscription int := coalesce((filter ->> 'afterSubscription')::int, 0);
begin
  if filter ->> 'subscription' is not null then
    for_subscription := coalesce((select s.id from bus.subscriptions s where s.name = filter ->> 'subscription'), 0);
  end if;
  loop
    select array_agg(f.event_id order by f.failed_at, f.event_id, f.subscription_id),
      array_agg(f.subscription_id order by f.failed_at, f.event_id, f.subscription_id),
      array_agg('bus.' || coalesce(s.name, '') || '.dead' order by f.failed_at, f.event_id, f.subscription_id),
      array_agg(f.job_id order by f.failed_at, f.event_id, f.subscription_id), max(f.failed_at)
    into page_events, page_subscriptions, page_queues, page_jobs, last_time
    from bus.dead_letter_rows(page, step_count) f
    left join bus.subscriptions s on s.id = f.subscription_id;
    exit when page_events is null;
    page := page || jsonb_build_object('afterTime', last_time, 'afterEvent', page_events[cardinality(page_events)],
      'afterSubscription', page_subscriptions[cardinality(page_events)]);
    page_count := cardinality(page_events);
    seen_count := seen_count + page_count;
    if wanted_types is not null then
      -- Only the partitions of these events are read.
      execute 'select array_agg(e.id) from bus.events e where e.id = any ($1) and e.type = any ($2)' into found_events using page_events, wanted_types;
      select array_agg(u.event_id order by u.place), array_agg(u.subscription_id order by u.place), array_agg(u.queue order by u.place),
        array_agg(u.job_id order by u.place)
      into page_events, page_subscriptions, page_queues, page_jobs
      from unnest(page_events, page_subscriptions, page_queues, page_jobs) with ordinality as u (event_id, subscription_id, queue, job_id, place)
      join unnest(found_events) as w (event_id) on w.event_id = u.event_id;
    end if;
    present := '{}';
    -- Dead letters are in one table, as a rule. No index can serve the condition on the name: with stale statistics one with all jobs of the
    -- queue would be read.
    for dead_table in
      select distinct q.table_name from unnest(page_queues) as n (name) join pgboss.queue q on q.name = n.name
    loop
      execute format($job$
        select array_agg(b.name || b.source_root_id) from pgboss.%I b
        where b.source_root_id = any ($1) and b.name || '' = any ($2) and b.state < 'active'
      $job$, dead_table) into found_in_table using page_jobs, page_queues;
      present := present || coalesce(found_in_table, '{}');
    end loop;
    for n in 1 .. coalesce(cardinality(page_events), 0) loop
      if page_queues[n] || page_jobs[n] = any (present) then
        letter_events := letter_events || page_events[n];
        letter_subscriptions := letter_subscriptions || page_subscriptions[n];
      end if;
    end loop;
    exit when cardinality(letter_events) >= max_count or page_count < step_count;
    if seen_count >= 10000 and wanted_types is not null then
      through_time := last_time;
      exit;
    end if;
  end loop;
  letter_events := letter_events[:max_count];
  letter_subscriptions := letter_subscriptions[:max_count];
  if coalesce('parked' = any (bus.json_texts(filter -> 'states')), true) and filter ->> 'fingerprint' is null and filter ->> 'errorName' is null
    and filter ->> 'errorCode' is null and bus.json_texts(filter -> 'eventIds') is null
  then
    parked_events := array(
      select o.event_id
      from bus.ordered_keys k
      join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq and o.event_id <> k.failed_event_id
      cross join lateral (select greatest(to_timestamp(bus.uuid_ms(o.event_id) / 1000.0), k.failed_at) as at) d
      where k.failed_at is not null and k.state = 'parked' and (for_subscription is null or k.subscription_id = for_subscription)
        and (filter ->> 'tenantId' is null or k.tenant_id = filter ->> 'tenantId')
        and (d.at, o.event_id, k.subscription_id) > (after_time, after_event, after_subscription) and d.at <= through_time
        and d.at >= coalesce((filter ->> 'from')::timestamptz, '-infinity') and d.at < coalesce((filter ->> 'to')::timestamptz, 'infinity')
      order by d.at, o.event_id, k.subscription_id limit step_count);
  end if;
  if letter_events || parked_events = '{}' then
    return;
  end if;
  execute 'select jsonb_object_agg(e.id, e.type) from bus.events e where e.id = any ($1)' into types using letter_events || parked_events;
  -- Only the partitions of these events are read.
  return query
  with history as materialized (
    select a.event_id, a.subscription_id, jsonb_agg(jsonb_strip_nulls(jsonb_build_object('attempt', a.attempt, 'at', to_jsonb(a.ended_at),
      'name', a.error_name, 'message', a.error_message, 'code', a.error_code, 'stack', a.error_stack)) order by a.ended_at, a.attempt) as failures
    from bus.attempts a where a.event_id = any (letter_events) and not a.succeeded
    group by a.event_id, a.subscription_id
  )
  select l.event_id, l.name, l.job_id, l.attempts, l.failures, l.at, l.tenant_id, l.ordering_key, l.key_state, l.state,
    types ->> l.event_id::text, l.fingerprint,
    to_char(l.at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '_' || l.event_id || '_' || l.subscription_id
  from (
    select f.event_id, f.subscription_id, s.name, f.job_id, f.attempts::int as attempts, coalesce(h.failures, '[]') as failures,
      f.failed_at as at, f.tenant_id, k.ordering_key, k.state as key_state, f.state, f.fingerprint
    from unnest(letter_events, letter_subscriptions) as u (event_id, subscription_id)
    join bus.failing f on f.subscription_id = u.subscription_id and f.event_id = u.event_id
    join bus.subscriptions s on s.id = f.subscription_id
    left join history h on h.event_id = f.event_id and h.subscription_id = f.subscription_id
    left join bus.ordered_keys k on k.id = f.key_id and k.failed_event_id = f.event_id and k.state in ('blocked', 'parked')
    union all
    select o.event_id, k.subscription_id, s.name, o.event_id, 0, '[]', greatest(to_timestamp(bus.uuid_ms(o.event_id) / 1000.0), k.failed_at),
      k.tenant_id, k.ordering_key, k.state, 'parked', null
    from bus.ordered_keys k
    join bus.subscriptions s on s.id = k.subscription_id
    join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq and o.event_id <> k.failed_event_id
    where k.failed_at is not null and k.state = 'parked' and o.event_id = any (parked_events)
      and (for_subscription is null or k.subscription_id = for_subscription)
      and (wanted_types is null or types ->> o.event_id::text = any (wanted_types))
  ) l
  order by l.at, l.event_id, l.subscription_id
  limit max_count;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- The same for one subscription or all, of one tenant or all.
create or replace function bus.dead_letters(of_subscription text, of_tenant text, max_count int)
returns table (
  event_id uuid, subscription text, job_id uuid, attempts int, failures jsonb, dead_at timestamptz, tenant_id text, ordering_key text, key_state text)
language plpgsql stable as $body$
begin
  return query
  select l.event_id, l.subscription, l.job_id, l.attempts, l.failures, l.dead_at, l.tenant_id, l.ordering_key, l.key_state
  from bus.dead_letters(jsonb_strip_nulls(jsonb_build_object('subscription', of_subscription, 'tenantId', of_tenant)), max_count) l;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- The dead letters of the tenant that match a filter, without stack traces, at most a thousand.
create function bus.tenant_dead_letters(filter jsonb, max_count int)
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
create function bus.dead_letter_groups(filter jsonb, max_count int)
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
create function bus.copy_event(copy uuid, original uuid, for_subscription int, new_payload jsonb, new_version int, new_metadata jsonb)
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

-- Puts a copy to the end of its key. For an operator, as bus.enqueue_ordered is for the relay; with the same answer.
-- Locks: as bus.enqueue_ordered. Repeating: adds it again.
create function bus.enqueue_copy(copy uuid, batch_size int, batch_bytes int)
returns table (key_id bigint, job_id uuid, event_ids uuid[]) language plpgsql security definer as $body$
begin
  return query
  select q.key_id, q.job_id, q.event_ids from bus.event_copies c
  join bus.events e on e.id = copy
  cross join lateral bus.enqueue_ordered(c.subscription_id, batch_size, batch_bytes, array[e.tenant_id], array[e.ordering_key], array[e.id],
    array[octet_length(e.payload::text)], array[e.type], false, true) q
  where c.event_id = copy;
end
$body$ set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Functions: what has become of an event.

-- As before, with the state `discarded`: `failure` then says by whom (discardedBy), why (reason), and which copy takes its place (replacedBy).
create or replace function bus.event_deliveries(of_event uuid)
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
    select s.id as subscription_id, r.attempts::int, r.expired, coalesce(r.erased, false) as erased, r.delivered_at, r.duration_ms, r.discard_id
    from bus.subscriptions s
    join bus.receipts r on r.subscription_id = s.id and r.event_id = of_event
    union all
    select s.id, 1, false, false, b.delivered_at, b.duration_ms, null::uuid
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
      when d.discard_id is not null then 'discarded'
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
      when d.discard_id is not null then coalesce((
        select jsonb_strip_nulls(jsonb_build_object('discardedBy', a.actor, 'reason', a.reason, 'replacedBy', a.change ->> 'copyId'))
        from bus.audit a where a.id = d.discard_id or a.operation_id = d.discard_id limit 1), '{}')
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

-- What became of an event of the tenant: bus.event_deliveries without stack traces, instances, and who discarded it.
create or replace function bus.tenant_deliveries(of_event uuid)
returns table (
  subscription text, state text, attempts int, failure jsonb, due_at timestamptz, delivered_at timestamptz, duration_ms real, timeline jsonb)
language plpgsql stable security definer as $body$
#variable_conflict use_column
begin
  if exists (select from bus.events e where e.id = of_event and e.tenant_id = bus.current_tenant()) then
    return query
    select d.subscription, d.state, d.attempts, d.failure - '{stack,instanceId,discardedBy,reason,replacedBy}'::text[], d.due_at, d.delivered_at,
      d.duration_ms, bus.timeline_for_tenant(d.timeline)
    from bus.event_deliveries(of_event) d;
  end if;
end
$body$ set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- One receipt a row, as before. A discarded one is also marked as expired: it was not delivered either.
create or replace view bus.deliveries with (security_barrier = true) as
with reader as materialized (select bus.reads_all_tenants() as reads_all, bus.current_tenant() as tenant)
select d.subscription_id, d.event_id, d.attempts, d.expired, d.duration_ms, d.delivered_at, d.erased, d.discarded
from (
  select r.subscription_id, r.event_id, r.attempts, r.expired, r.duration_ms, r.delivered_at, r.erased, r.discard_id is not null as discarded from bus.receipts r
  union all
  select b.subscription_id, u.event_id, 1::smallint, false, u.duration_ms, b.delivered_at, null::boolean, false
  from bus.receipt_batches b cross join lateral unnest(b.event_ids, b.durations_ms) as u (event_id, duration_ms)
) d
where (select r.reads_all from reader r)
  or exists (select from bus.events e where e.id = d.event_id and e.tenant_id = (select r.tenant from reader r));
--> statement-breakpoint

-- Privileges. drizzle/roles.sql grants the rest to roles, by name.

revoke execute on function
  bus.dead_letter_condition(jsonb), bus.json_texts(jsonb), bus.dead_letter_rows(jsonb, int), bus.count_dead_letters(jsonb, int), bus.dead_letters(jsonb, int),
  bus.tenant_dead_letters(jsonb, int), bus.dead_letter_groups(jsonb, int), bus.copy_event(uuid, uuid, int, jsonb, int, jsonb),
  bus.enqueue_copy(uuid, int, int)
from public;
