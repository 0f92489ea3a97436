-- What became of an event: one row for each subscription that has it, or had it. An event that is still in the outbox has
-- none. `attempts` are those that were made and, but for the last one of a delivery, failed. Receipts are looked up; jobs are searched for
-- in the queues of the subscriptions that have no receipt, so it costs what waits there.
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
  left join bus.deliveries d on d.subscription_id = s.id and d.event_id = of_event
  left join lateral (
    select q.state::text as state, q.start_after, q.dead,
      case
        when not q.single then 0
        when q.dead then coalesce((q.source_output ->> 'attempts')::int, coalesce((q.data ->> 'attempts')::int, 0) + coalesce(q.source_retry_count, 0) + 1)
        else coalesce((q.data ->> 'attempts')::int, 0) + q.retry_count + case when q.state = 'retry' then 1 else 0 end end as attempts,
      case when q.single then coalesce(
        -- pg-boss ended the attempt of a lost worker, and left a message.
        case when q.ended -> 'value' ->> 'message' is not null then jsonb_build_object('name', 'WorkerLost', 'message', q.ended -> 'value' ->> 'message') end,
        q.ended -> 'failures' -> -1, q.data -> 'failures' -> -1) end as failure
    from (
      select b.*, jsonb_array_length(b.data -> 'eventIds') = 1 as single, b.name = 'bus.' || s.name || '.dead' as dead,
        case when b.name = 'bus.' || s.name then b.output else b.source_output end as ended
      from pgboss.job b
      where d.event_id is null and b.name in ('bus.' || s.name, 'bus.' || s.name || '.dead')
        and b.state < 'completed' and b.data -> 'eventIds' ? of_event::text
    ) q
    -- What was redriven comes before the dead letter it was.
    order by q.name limit 1
  ) j on true
  left join lateral (
    select k.state, k.failed_event_id, k.attempts, k.failures
    from bus.ordered_keys k join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq
    where d.event_id is null and k.subscription_id = s.id and k.key_hash = bus.ordering_key_hash(of_tenant, of_key) and o.event_id = of_event
    limit 1
  ) w on true
  where d.event_id is not null or j.state is not null or w.state is not null
  order by s.name collate "C";
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- What a tenant is shown of deliveries and dead letters. The tables of pg-boss hold jobs for events of several tenants
-- together, so no tenant may read them: these functions do, as their owner, and give what is about events of the tenant that is set for
-- the transaction, without the stack traces.
create function bus.tenant_deliveries(of_event uuid)
returns table (subscription text, state text, attempts int, failure jsonb, due_at timestamptz, delivered_at timestamptz, duration_ms real)
language plpgsql stable security definer as $body$
#variable_conflict use_column
begin
  if exists (select from bus.events e where e.id = of_event and e.tenant_id = bus.current_tenant()) then
    return query
    select d.subscription, d.state, d.attempts, d.failure - 'stack', d.due_at, d.delivered_at, d.duration_ms
    from bus.event_deliveries(of_event) d;
  end if;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

create function bus.tenant_dead_letters(of_subscription text, max_count int)
returns table (
  id uuid, subscription text, data jsonb, source_retry_count int, source_output jsonb, created_on timestamptz,
  tenant_id text, ordering_key text, key_state text)
language plpgsql stable security definer as $body$
#variable_conflict use_column
declare
  tenant text := bus.current_tenant();
begin
  return query
  select l.id, l.subscription,
    case when l.data -> 'failures' is null then l.data else jsonb_set(l.data, '{failures}', bus.without_stacks(l.data -> 'failures')) end,
    l.source_retry_count,
    case when l.source_output -> 'failures' is null then l.source_output
      else jsonb_set(l.source_output, '{failures}', bus.without_stacks(l.source_output -> 'failures')) end,
    l.created_on, l.tenant_id, l.ordering_key, l.key_state
  from (
    select j.id, s.name as subscription, j.data, j.source_retry_count, j.source_output, j.created_on,
      k.tenant_id, k.ordering_key, k.state as key_state, 0 as seq
    from bus.subscriptions s
    join pgboss.job j on j.name = 'bus.' || s.name || '.dead' and j.state < 'active' and jsonb_array_length(j.data -> 'eventIds') = 1
    join bus.events e on e.id = (j.data -> 'eventIds' ->> 0)::uuid and e.tenant_id = tenant
    left join bus.ordered_keys k on k.id = (j.data ->> 'keyId')::bigint and k.failed_event_id = e.id and k.failed_at is not null
    where of_subscription is null or s.name = of_subscription
    union all
    select o.event_id, s.name, jsonb_build_object('eventIds', jsonb_build_array(o.event_id)), null, null,
      greatest(e.created_at, k.failed_at), k.tenant_id, k.ordering_key, k.state, o.seq
    from bus.ordered_keys k
    join bus.subscriptions s on s.id = k.subscription_id
    join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq and o.event_id <> k.failed_event_id
    join bus.events e on e.id = o.event_id
    where k.tenant_id = tenant and k.failed_at is not null and k.state = 'parked' and (of_subscription is null or s.name = of_subscription)
  ) l
  order by l.created_on, l.seq, l.id
  limit least(max_count, 1000);
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

create function bus.without_stacks(failures jsonb) returns jsonb language sql immutable parallel safe
return case when jsonb_typeof(failures) = 'array' then
  (select coalesce(jsonb_agg(f.failure - 'stack' order by f.ordinal), '[]') from jsonb_array_elements(failures) with ordinality as f (failure, ordinal))
  else '[]' end;
--> statement-breakpoint

-- How the events of the tenant, those with ids from one to before another, stand with each subscription that has, or had, some of them.
create function bus.tenant_delivery_stats(from_id uuid, to_id uuid)
returns table (subscription text, delivered bigint, expired bigint, waiting bigint, dead bigint)
language plpgsql stable security definer as $body$
#variable_conflict use_column
declare
  tenant text := bus.current_tenant();
begin
  return query
  with mine as (
    select e.id from bus.events e where e.tenant_id = tenant and e.id >= from_id and e.id < to_id
  ), done as (
    select d.subscription_id, count(*) filter (where not d.expired) as delivered, count(*) filter (where d.expired) as expired
    from mine m join bus.deliveries d on d.event_id = m.id
    where d.event_id >= from_id and d.event_id < to_id
    group by d.subscription_id
  ), pending as (
    select s.id as subscription_id, j.name = 'bus.' || s.name || '.dead' as dead, x.event_id::uuid as event_id
    from bus.subscriptions s
    join pgboss.job j on j.name in ('bus.' || s.name, 'bus.' || s.name || '.dead') and j.state < 'completed'
    cross join lateral jsonb_array_elements_text(j.data -> 'eventIds') as x (event_id)
    union
    -- What waits in line, and what is parked behind a failed event.
    select k.subscription_id, k.state = 'parked', o.event_id
    from bus.ordered_keys k join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq
    where k.tenant_id = tenant and o.event_id is distinct from k.failed_event_id
  ), open as (
    select p.subscription_id, count(distinct p.event_id) filter (where not p.dead) as waiting, count(distinct p.event_id) filter (where p.dead) as dead
    from pending p join mine m on m.id = p.event_id
    where not exists (select from bus.deliveries d where d.subscription_id = p.subscription_id and d.event_id = p.event_id)
    group by p.subscription_id
  )
  select s.name, coalesce(done.delivered, 0), coalesce(done.expired, 0), coalesce(open.waiting, 0), coalesce(open.dead, 0)
  from bus.subscriptions s
  left join done on done.subscription_id = s.id
  left join open on open.subscription_id = s.id
  where done.subscription_id is not null or open.subscription_id is not null
  order by s.name collate "C";
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

revoke execute on function
  bus.event_deliveries(uuid), bus.tenant_deliveries(uuid), bus.tenant_dead_letters(text, int), bus.without_stacks(jsonb),
  bus.tenant_delivery_stats(uuid, uuid)
from public;
