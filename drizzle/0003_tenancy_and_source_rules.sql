-- Tenancy: what one tenant may read, and which sources and types a role may publish.

-- Functions that policies call.

-- The tenant that is set for the transaction, or null: `set local bus.tenant_id = 'acme'`.
create function bus.current_tenant() returns text language sql stable parallel safe
return nullif(current_setting('bus.tenant_id', true), '');
--> statement-breakpoint

-- Tables.

-- Which sources and types a database role may publish.
create table bus.source_rules (
  role text not null,
  source text not null,
  type text default '**' not null,
  constraint source_rules_role_source_type_pk primary key (role, source, type),
  constraint source_rules_type_check check (type ~ '^([^*]+|([^*]+\.)?\*\*)$')
);
--> statement-breakpoint

-- Functions: source rules. All of them only read.

-- Whether a rule of bus.source_rules applies to a role: it names the role, a role of which it is a member, or the role that has
-- logged in, which `set role` does not change.
create function bus.source_rule_applies(rule_role text, publisher name) returns boolean language plpgsql stable as $body$
declare
  role_id oid := (select r.oid from pg_roles r where r.rolname = rule_role);
begin
  return role_id is not null and (
    pg_has_role(publisher, role_id, 'member')
    or (pg_has_role(session_user, role_id, 'member') and not (select r.rolsuper from pg_roles r where r.rolname = session_user)));
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- Whether no rule applies to a role. Evaluated once a statement.
create function bus.is_unrestricted_publisher(publisher name) returns boolean language plpgsql stable security definer as $body$
begin
  return not exists (select from bus.source_rules r where bus.source_rule_applies(r.role, publisher));
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- Whether a rule allows a role, to which some rules apply, to publish such an event.
create function bus.may_publish(publisher name, event_source text, event_type text) returns boolean language plpgsql stable security definer as $body$
begin
  return exists (
    select from bus.source_rules r
    where r.source = event_source
      and (r.type = event_type or (right(r.type, 2) = '**' and starts_with(event_type, left(r.type, -2))))
      and bus.source_rule_applies(r.role, publisher));
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- The trigger of bus.source_rules. A rule for a role that does not exist would apply to nobody, and a role without rules is not
-- restricted: so a misspelt name is refused.
create function bus.check_source_rule() returns trigger language plpgsql as $body$
begin
  if not exists (select from pg_roles r where r.rolname = new.role) then
    raise exception 'There is no role %: a rule for it would bind nobody', quote_ident(new.role) using errcode = '42704';
  end if;
  return new;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint

-- Functions: what a tenant may read of deliveries and dead letters. The tables of pg-boss hold jobs for events of several tenants
-- together, so tenants may not read them. These functions run as their owner, and return only what is about events of the tenant
-- that is set for the transaction, without stack traces. All of them only read.

-- What became of an event of the tenant: bus.event_deliveries without stack traces. No rows for an event of another tenant.
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

-- A list of failures without their stack traces.
create function bus.without_stacks(failures jsonb) returns jsonb language sql immutable parallel safe
return case when jsonb_typeof(failures) = 'array' then
  (select coalesce(jsonb_agg(f.failure - 'stack' order by f.ordinal), '[]') from jsonb_array_elements(failures) with ordinality as f (failure, ordinal))
  else '[]' end;
--> statement-breakpoint

-- The dead letters of the tenant, oldest first, at most a thousand.
create function bus.tenant_dead_letters(of_subscription text, max_count int)
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
    -- Dead letters are in one table, as a rule.
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
    where k.tenant_id = tenant and k.failed_at is not null and k.state = 'parked' and (of_subscription is null or s.name = of_subscription)
  ) l
  order by l.created_on, l.seq, l.id
  limit row_count;
end
$body$ set search_path = pg_catalog, pg_temp set jit = off;
--> statement-breakpoint

-- How many events of the tenant, with ids from one up to and not including another, each subscription has delivered, let expire, has
-- waiting or has as dead letters. Subscriptions that have and had none of them are left out.
create function bus.tenant_delivery_stats(from_id uuid, to_id uuid)
returns table (subscription text, delivered bigint, expired bigint, waiting bigint, dead bigint)
language plpgsql stable security definer as $body$
#variable_conflict use_column
declare
  tenant text := bus.current_tenant();
begin
  return query
  with tenant_events as materialized (
    select e.id from bus.events e where e.tenant_id = tenant and e.id >= from_id and e.id < to_id
  ), done as (
    select d.subscription_id, count(*) filter (where not d.expired) as delivered, count(*) filter (where d.expired) as expired
    from tenant_events m join bus.deliveries d on d.event_id = m.id
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
    -- The events of keys: those that wait, and those that are parked after a failed event.
    select k.subscription_id, k.state = 'parked', o.event_id
    from bus.ordered_keys k join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq
    where k.tenant_id = tenant and o.event_id is distinct from k.failed_event_id
  ), open as (
    select p.subscription_id, count(distinct p.event_id) filter (where not p.dead) as waiting, count(distinct p.event_id) filter (where p.dead) as dead
    from pending p join tenant_events m on m.id = p.event_id
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
--> statement-breakpoint

-- Triggers.

create trigger check_source_rule before insert or update on bus.source_rules for each row execute function bus.check_source_rule();
--> statement-breakpoint

-- Row security: a role that does not own the tables reads the rows of the tenant that is set for the transaction, and none if no
-- tenant is set. The policies of the roles bus_worker and bus_operator are in drizzle/roles.sql. Partitions have none: their rows are
-- read through the log and the receipts.

alter table bus.events enable row level security;
--> statement-breakpoint
alter table bus.events_default enable row level security;
--> statement-breakpoint
alter table bus.event_keys enable row level security;
--> statement-breakpoint
alter table bus.outbox enable row level security;
--> statement-breakpoint
alter table bus.cancellations enable row level security;
--> statement-breakpoint
alter table bus.deliveries enable row level security;
--> statement-breakpoint
alter table bus.deliveries_default enable row level security;
--> statement-breakpoint
alter table bus.ordered_keys enable row level security;
--> statement-breakpoint
alter table bus.ordered_events enable row level security;
--> statement-breakpoint
create policy tenant_reads on bus.events for select to public using (tenant_id = (select bus.current_tenant()));
--> statement-breakpoint
create policy publishes on bus.events for insert to public
with check ((select bus.is_unrestricted_publisher(current_user)) or bus.may_publish(current_user, source, type));
--> statement-breakpoint
create policy tenant_reads on bus.event_keys for select to public using (tenant_id = (select bus.current_tenant()));
--> statement-breakpoint
create policy tenant_reads on bus.outbox for select to public using (tenant_id = (select bus.current_tenant()));
--> statement-breakpoint
create policy tenant_reads on bus.cancellations for select to public using (tenant_id = (select bus.current_tenant()));
--> statement-breakpoint
create policy tenant_reads on bus.deliveries for select to public
using (exists (select from bus.events e where e.id = deliveries.event_id));
--> statement-breakpoint
create policy tenant_reads on bus.ordered_keys for select to public using (tenant_id = (select bus.current_tenant()));
--> statement-breakpoint
create policy tenant_reads on bus.ordered_events for select to public
using (exists (select from bus.ordered_keys k where k.id = ordered_events.key_id));
--> statement-breakpoint

-- Privileges. drizzle/roles.sql grants the rest to roles, by name.

revoke execute on function
  bus.source_rule_applies(text, name), bus.check_source_rule(), bus.tenant_deliveries(uuid), bus.without_stacks(jsonb),
  bus.tenant_dead_letters(text, int), bus.tenant_delivery_stats(uuid, uuid)
from public;
--> statement-breakpoint
-- The policies call these for every role.
grant execute on function bus.current_tenant(), bus.is_unrestricted_publisher(name), bus.may_publish(name, text, text) to public;
