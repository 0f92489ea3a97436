-- What the HTTP API and its dashboard read besides: where many events are at once, and, for a tenant, its errors and the operations over its
-- events. No table and no index is added. src/operations/ calls these functions.

-- Where some events are: a row for each subscription that has or had one of them, with the state of bus.event_deliveries. Receipts are looked
-- up first; what is left is looked up in bus.failing, in the lines of keys and in the queue of the subscription, by index. A subscription none
-- of whose patterns, now or earlier, matches the type of an event is not asked about it. Give it some hundreds of events at most. Only reads.
create function bus.event_states(of_events uuid[]) returns table (event_id uuid, subscription text, state text) language plpgsql stable as $body$
#variable_conflict use_column
declare
  ids uuid[];
  types text[];
  wanted uuid[];
  received uuid[];
  reads text[] := '{}';
  each record;
begin
  select array_agg(e.id), array_agg(e.type) into ids, types from bus.events e where e.id = any (of_events);
  for each in select s.id, s.name, s.patterns from bus.subscriptions s loop
    wanted := array(
      select u.id from unnest(ids, types) as u (id, type)
      join (
        select t.type from (select distinct unnest(types)) as t (type)
        where exists (
          select from (
            select unnest(each.patterns) union all
            select unnest(d.patterns) from bus.declarations d where d.subscription_id = each.id) as p (pattern)
          where bus.pattern_matches(p.pattern, t.type))
      ) m on m.type = u.type);
    continue when cardinality(wanted) = 0;
    return query
    select r.event_id, each.name,
      case when r.erased then 'erased' when r.discard_id is not null then 'discarded' when r.expired then 'expired' else 'delivered' end
    from bus.receipts r where r.subscription_id = each.id and r.event_id = any (wanted);
    wanted := array(
      select unnest(wanted) except select r.event_id from bus.receipts r where r.subscription_id = each.id and r.event_id = any (wanted));
    continue when cardinality(wanted) = 0;
    received := array(select r.id from bus.received_events(each.id, wanted) as r (id));
    return query select r.id, each.name, 'delivered' from unnest(received) as r (id);
    wanted := array(select unnest(wanted) except select unnest(received));
    continue when cardinality(wanted) = 0;
    reads := reads || format($job$
      select e.id as event_id, %2$L as subscription,
        case
          when j.state = 'active' then 'delivering'
          when f.state = 'retrying' or (f.state is not null and j.state is not null) or j.attempts > 0 then 'retrying'
          when f.state is not null then 'dead'
          when j.state is not null then 'waiting'
          when w.failed_event_id = e.id or w.state = 'parked' then 'dead'
          else 'waiting' end as state
      from unnest(%3$L::uuid[]) as e (id)
      join bus.events v on v.id = e.id
      left join bus.failing f on f.subscription_id = %1$s and f.event_id = e.id
      left join lateral (
        select k.state, k.failed_event_id, k.job_id
        from bus.ordered_keys k join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq
        where k.subscription_id = %1$s and k.key_hash = bus.ordering_key_hash(v.tenant_id, v.ordering_key) and o.event_id = e.id
        limit 1
      ) w on true
      left join lateral (
        select q.state::text as state, case when jsonb_array_length(q.data -> 'eventIds') = 1
          then coalesce((q.data ->> 'attempts')::int, 0) + q.retry_count + case when q.state = 'retry' then 1 else 0 end else 0 end as attempts
        from (
          (select b.state, b.data, b.retry_count from pgboss.job b
           where b.name = %4$L and b.state < 'completed' and b.id in (
             select x.id from pgboss.job x where x.name = %4$L and x.id = f.job_id
             union all select x.id from pgboss.job x where x.name = %4$L and x.source_root_id = f.job_id)
           limit 1)
          union all
          (select b.state, b.data, b.retry_count from pgboss.job b
           where f.event_id is null and b.name = %4$L and b.state < 'completed' and b.id = w.job_id and b.data -> 'eventIds' ? e.id::text
           limit 1)
          union all
          (select b.state, b.data, b.retry_count from (
             select bus.uuid_ms(e.id) union all
             select (extract(epoch from v.available_at) * 1000)::bigint where isfinite(v.available_at)) as m (ms)
           cross join lateral (
             select b.state, b.data, b.retry_count from pgboss.job b
             where f.event_id is null and w.state is null and b.name = %4$L and b.state < 'completed'
               and b.id >= bus.uuid_v7_floor(to_timestamp((m.ms - 16384)::float8 / 1000)) and b.id < bus.uuid_v7_floor(to_timestamp((m.ms + 1)::float8 / 1000))
               and bus.job_may_hold(b.id, m.ms) and b.data -> 'eventIds' ? e.id::text
             order by b.name, b.id limit 1
           ) b
           limit 1)
        ) q
        limit 1
      ) j on true
      where f.state is not null or w.state is not null or j.state is not null
    $job$, each.id, each.name, wanted, 'bus.' || each.name);
  end loop;
  return query select (r.job ->> 'event_id')::uuid, r.job ->> 'subscription', r.job ->> 'state' from bus.read_each(reads) as r (job);
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
  set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- The same of events of the tenant. No rows for events of others.
create function bus.tenant_event_states(of_events uuid[]) returns table (event_id uuid, subscription text, state text)
language plpgsql stable security definer as $body$
#variable_conflict use_column
declare
  own uuid[] := array(select e.id from bus.events e where e.id = any (of_events) and e.tenant_id = bus.current_tenant());
begin
  return query select s.event_id, s.subscription, s.state from bus.event_states(own[1:1000]) s;
end
$body$ set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- What the dead letters of the tenant have failed with: bus.dead_letter_groups for its own.
create function bus.tenant_dead_letter_groups(filter jsonb, max_count int)
returns table (
  fingerprint text, error_name text, error_code text, message text, letter_count bigint, first_at timestamptz, last_at timestamptz,
  subscriptions text[], tenant_count int, event_id uuid, subscription text)
language plpgsql stable security definer as $body$
#variable_conflict use_column
begin
  if bus.current_tenant() is not null then
    return query
    select g.* from bus.dead_letter_groups(
      case when jsonb_typeof(filter) = 'object' then filter else '{}' end || jsonb_build_object('tenantId', bus.current_tenant()), least(max_count, 1000)) g;
  end if;
end
$body$ set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- The redrives, discards and replays over the events of the tenant alone, latest first, among the latest 10,000 operations. Without who has
-- started, paused or ended them and why, which is not the tenant's to know; an operation that has stopped by itself says why. Only reads.
create function bus.tenant_operations(of_id uuid, after_id uuid, max_count int)
returns table (
  id uuid, kind text, state text, selection jsonb, subscriptions text[], rate int, expected jsonb, total bigint, counts jsonb, uncounted jsonb,
  stopped_because text, created_at timestamptz, updated_at timestamptz, finished_at timestamptz)
language plpgsql stable security definer as $body$
#variable_conflict use_column
begin
  if bus.current_tenant() is null then
    return;
  end if;
  return query
  select o.id, o.kind, o.state, o.selection - 'stored',
    array(
      select s.name from (select r.id, r.name from bus.subscriptions r union select r.id, r.name from bus.removed_subscriptions r) s
      where s.id = any (o.subscription_ids) order by s.name collate "C"),
    o.rate, o.expected, o.total, o.counts,
    case when o.kind = 'replay' then (
      select jsonb_build_object('delivered', sum(x.delivered), 'expired', sum(x.expired), 'dead', sum(x.dead))
      from bus.replays r join bus.replay_outcomes x on x.replay_id = r.id where r.operation_id = o.id) end,
    case when o.state = 'stopped' then o.state_reason end, o.created_at, o.updated_at, o.finished_at
  from (
    select * from bus.operations r
    where (of_id is null or r.id = of_id) and (after_id is null or r.id < after_id) order by r.id desc limit 10000) o
  where o.selection ->> 'tenantId' = bus.current_tenant() and o.kind in ('redrive', 'discard', 'replay')
  order by o.id desc limit least(max_count, 1000);
end
$body$ set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Privileges. drizzle/roles.sql grants the rest to roles, by name.

revoke execute on function
  bus.event_states(uuid[]), bus.tenant_event_states(uuid[]), bus.tenant_dead_letter_groups(jsonb, int), bus.tenant_operations(uuid, uuid, int)
from public;
