-- Runs statements, a few at a time, and gives their rows. Reading the queue of one subscription locks the partition and its
-- dozen indexes, and a statement keeps its locks: with hundreds of subscriptions one that reads every queue fills the lock
-- table of the whole server. Locks that were taken since a savepoint go when it is rolled back to. So each slice runs behind one, and
-- what it has found is kept in a variable, which no rollback undoes. The statements see one snapshot. Each has the same columns, by their
-- names, as any may be the first of its slice.
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
revoke execute on function bus.read_each(text[]) from public;
--> statement-breakpoint

-- How the last attempt failed, by what was written down when it ended, else by what lay behind it. pg-boss ended the attempt of a
-- lost worker, and left a message.
create function bus.last_failure(ended jsonb, data jsonb) returns jsonb language sql immutable
return coalesce(
  case when ended -> 'value' ->> 'message' is not null then jsonb_build_object('name', 'WorkerLost', 'message', ended -> 'value' ->> 'message') end,
  ended -> 'failures' -> -1, data -> 'failures' -> -1);
--> statement-breakpoint
revoke execute on function bus.last_failure(jsonb, jsonb) from public;
--> statement-breakpoint

-- As before, but that the queues are read a few at a time.
create or replace function bus.event_deliveries(of_event uuid)
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
      -- Dead letters stand in one table, as a rule.
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
    -- What was redriven comes before the dead letter it was.
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

create or replace function bus.tenant_dead_letters(of_subscription text, max_count int)
returns table (
  id uuid, subscription text, data jsonb, source_retry_count int, source_output jsonb, created_on timestamptz,
  tenant_id text, ordering_key text, key_state text)
language plpgsql stable security definer as $body$
#variable_conflict use_column
declare
  tenant text := bus.current_tenant();
  row_count int := least(max_count, 1000);
begin
  return query
  select l.id, l.subscription,
    case when l.data -> 'failures' is null then l.data else jsonb_set(l.data, '{failures}', bus.without_stacks(l.data -> 'failures')) end,
    l.source_retry_count,
    case when l.source_output -> 'failures' is null then l.source_output
      else jsonb_set(l.source_output, '{failures}', bus.without_stacks(l.source_output -> 'failures')) end,
    l.created_on, l.tenant_id, l.ordering_key, l.key_state
  from (
    select (r.job ->> 'id')::uuid as id, r.job ->> 'subscription' as subscription, r.job -> 'data' as data,
      (r.job ->> 'source_retry_count')::int as source_retry_count, nullif(r.job -> 'source_output', 'null') as source_output,
      (r.job ->> 'created_on')::timestamptz as created_on, r.job ->> 'tenant_id' as tenant_id, r.job ->> 'ordering_key' as ordering_key,
      r.job ->> 'key_state' as key_state, 0 as seq
    -- Dead letters stand in one table, as a rule.
    from bus.read_each(array(
      select format($job$
        select j.id, s.name as subscription, j.data, j.source_retry_count, j.source_output, j.created_on, k.tenant_id, k.ordering_key, k.state as key_state
        from bus.subscriptions s
        join pgboss.%I j on j.name = 'bus.' || s.name || '.dead' and j.state < 'active' and jsonb_array_length(j.data -> 'eventIds') = 1
        join bus.events e on e.id = (j.data -> 'eventIds' ->> 0)::uuid and e.tenant_id = %L
        left join bus.ordered_keys k on k.id = (j.data ->> 'keyId')::bigint and k.failed_event_id = e.id and k.state in ('blocked', 'parked')
        where %3$L is null or s.name = %3$L
        order by j.created_on, j.id limit %4$s
      $job$, t.table_name, tenant, of_subscription, row_count)
      from (
        select distinct q.table_name from pgboss.queue q join bus.subscriptions s on q.name = 'bus.' || s.name || '.dead'
        where of_subscription is null or s.name = of_subscription
      ) t
    )) as r (job)
    union all
    select o.event_id, s.name, jsonb_build_object('eventIds', jsonb_build_array(o.event_id)), null, null,
      greatest(e.created_at, k.failed_at), k.tenant_id, k.ordering_key, k.state, o.seq
    from bus.ordered_keys k
    join bus.subscriptions s on s.id = k.subscription_id
    join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq and o.event_id <> k.failed_event_id
    join bus.events e on e.id = o.event_id
    where k.tenant_id = tenant and k.state in ('blocked', 'parked') and k.state = 'parked' and (of_subscription is null or s.name = of_subscription)
  ) l
  order by l.created_on, l.seq, l.id
  limit row_count;
end
$body$ set search_path = pg_catalog, pg_temp set jit = off;
--> statement-breakpoint

create or replace function bus.tenant_delivery_stats(from_id uuid, to_id uuid)
returns table (subscription text, delivered bigint, expired bigint, waiting bigint, dead bigint)
language plpgsql stable security definer as $body$
#variable_conflict use_column
declare
  tenant text := bus.current_tenant();
begin
  return query
  with mine as materialized (
    select e.id from bus.events e where e.tenant_id = tenant and e.id >= from_id and e.id < to_id
  ), done as (
    select d.subscription_id, count(*) filter (where not d.expired) as delivered, count(*) filter (where d.expired) as expired
    from mine m join bus.deliveries d on d.event_id = m.id
    where d.event_id >= from_id and d.event_id < to_id
    group by d.subscription_id
  ), pending as (
    select (r.jobs ->> 'subscription_id')::int as subscription_id, (r.jobs ->> 'dead')::boolean as dead, x.event_id::uuid as event_id
    from bus.read_each(array(
      select format($job$
        select %s as subscription_id, false as dead, jsonb_agg(j.event_id) as event_ids
        from (
          select jsonb_array_elements_text(b.data -> 'eventIds') as event_id
          from pgboss.job b where b.name = %L and b.state < 'completed'
        ) j
        where j.event_id::uuid >= %L and j.event_id::uuid < %L
        having count(*) > 0
      $job$, s.id, 'bus.' || s.name, from_id, to_id)
      from bus.subscriptions s
      union all
      select format($job$
        select s.id as subscription_id, true as dead, jsonb_agg(j.event_id) as event_ids
        from (
          select b.name, jsonb_array_elements_text(b.data -> 'eventIds') as event_id from pgboss.%I b where b.state < 'completed'
        ) j
        join bus.subscriptions s on j.name = 'bus.' || s.name || '.dead'
        where j.event_id::uuid >= %L and j.event_id::uuid < %L
        group by s.id
      $job$, t.table_name, from_id, to_id)
      from (
        select distinct q.table_name from pgboss.queue q join bus.subscriptions s on q.name = 'bus.' || s.name || '.dead'
      ) t
    )) as r (jobs)
    cross join lateral jsonb_array_elements_text(r.jobs -> 'event_ids') as x (event_id)
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
$body$ set search_path = pg_catalog, pg_temp set jit = off;
