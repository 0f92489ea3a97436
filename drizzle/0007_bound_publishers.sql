-- As before, but only for new ids: events that are stored keep their keys.
create or replace function bus.claim_event_keys(ids uuid[], tenant_ids text[], event_ids text[], idempotency_keys text[]) returns uuid[] language plpgsql security definer as $body$
declare
  first_ids uuid[];
  resolved_ids uuid[];
begin
  insert into bus.event_keys (tenant_id, kind, key, event_id)
  select e.tenant_id, k.kind, k.key, e.id
  from unnest(tenant_ids, event_ids, idempotency_keys, ids)
    with ordinality as e (tenant_id, event_id, idempotency_key, id, ordinal)
  cross join lateral (values ('event_id', e.event_id), ('idempotency_key', e.idempotency_key)) as k (kind, key)
  where k.key is not null
  order by e.tenant_id, k.kind, k.key, e.ordinal
  on conflict do nothing;
  first_ids := array(
    select coalesce(
      nullif((
        select k.event_id from bus.event_keys k
        where k.tenant_id = e.tenant_id and k.kind = 'event_id' and k.key = e.event_id), e.id),
      nullif((
        select k.event_id from bus.event_keys k
        where k.tenant_id = e.tenant_id and k.kind = 'idempotency_key' and k.key = e.idempotency_key), e.id),
      e.id)
    from unnest(tenant_ids, event_ids, idempotency_keys, ids)
      with ordinality as e (tenant_id, event_id, idempotency_key, id, ordinal)
    order by e.ordinal);
  if first_ids = ids then
    return ids;
  end if;
  -- Whoever calls this by itself, with the id of a stored event, would have that event's keys mean another one.
  if exists (select from bus.events e where e.id = any (ids)) then
    raise exception 'Expected ids of events that are not stored yet' using errcode = '22023';
  end if;
  -- What an event repeats may itself repeat an earlier one of the call. Each pass doubles the steps taken.
  loop
    resolved_ids := array(
      select coalesce(f.first_id, e.first_id)
      from unnest(first_ids) with ordinality as e (first_id, ordinal)
      left join unnest(ids, first_ids) as f (id, first_id) on f.id = e.first_id
      order by e.ordinal);
    exit when resolved_ids = first_ids;
    first_ids := resolved_ids;
  end loop;
  -- An event can be a duplicate by one key and bring another, new one: that key now means the first event too.
  insert into bus.event_keys (tenant_id, kind, key, event_id)
  select e.tenant_id, k.kind, k.key, e.first_id
  from unnest(tenant_ids, event_ids, idempotency_keys, ids, first_ids)
    as e (tenant_id, event_id, idempotency_key, id, first_id)
  cross join lateral (values ('event_id', e.event_id), ('idempotency_key', e.idempotency_key)) as k (kind, key)
  where e.first_id <> e.id and e.id = (
    select claimed.event_id from bus.event_keys claimed
    where claimed.tenant_id = e.tenant_id and claimed.kind = k.kind and claimed.key = k.key)
  on conflict (tenant_id, kind, key) do update set event_id = excluded.event_id;
  return first_ids;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_nestloop = off set jit = off;
--> statement-breakpoint

-- As before, but who is bound by bus.source_rules cancels only what it may publish. Whom the policies of the log do not bind, no
-- rule binds here either.
create or replace function bus.cancel(id uuid, tenant_id text default null) returns boolean language plpgsql security definer as $body$
#variable_conflict use_variable
declare
  removed_tenant_id text;
  -- Not current_user, which is the owner in here.
  publisher name := case current_setting('role') when 'none' then session_user else current_setting('role')::name end;
begin
  if not bus.publishes_freely(publisher)
    and not pg_has_role(publisher, (select c.relowner from pg_class c where c.oid = 'bus.events'::regclass), 'usage')
    and not (select r.rolbypassrls from pg_roles r where r.rolname = publisher)
    and exists (select from bus.events e where e.id = cancel.id and not bus.may_publish(publisher, e.source, e.type))
  then
    raise exception 'no rule lets this role publish such events, or cancel them' using errcode = 'insufficient_privilege';
  end if;
  delete from bus.outbox o
  where o.event_id = cancel.id and (cancel.tenant_id is null or o.tenant_id = cancel.tenant_id)
    -- As the trigger stored it: the index finds the row among a million.
    and o.available_at = (
      select least(e.available_at, '9999-12-31 00:00:00+00') from bus.events e where e.id = cancel.id)
  returning o.tenant_id into removed_tenant_id;
  if not found then
    return false;
  end if;
  insert into bus.cancellations (event_id, tenant_id) values (cancel.id, removed_tenant_id);
  return true;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off;
