-- Messages of other systems that could not become events.
--
-- * bus.quarantined_messages: one row for each message that a receiver could not store as an event, as it came. The system that sent it has
--   been told that it is received. People look at it, have it tried again, or discard it.
--
-- It replaces what 0012 defines: bus.retention_policy and bus.prune_rows. See docs/guide/receiving.md.

-- Tables. src/transports/receiving/schema.ts describes their columns.

create table bus.quarantined_messages (
  id uuid primary key default bus.uuid_v7() not null,
  receiver text not null,
  message_id text not null,
  has_id boolean not null,
  state text default 'new' not null,
  code text not null,
  reason text not null,
  received_from text not null,
  protocol text,
  content_type text,
  message_key text,
  headers jsonb default '{}' not null,
  body bytea not null,
  body_bytes bigint not null,
  is_cut boolean default false not null,
  received_count integer default 1 not null,
  received_at timestamp (6) with time zone default now() not null,
  last_received_at timestamp (6) with time zone default now() not null,
  decided_by text,
  decided_reason text,
  decided_at timestamp (6) with time zone,
  event_ids uuid[],
  constraint quarantined_messages_receiver_message_id_key unique (receiver, message_id),
  constraint quarantined_messages_state_check check (state in ('new', 'retrying', 'stored', 'discarded')),
  constraint quarantined_messages_lengths check (
    char_length(receiver) between 1 and 100 and char_length(message_id) between 1 and 255 and char_length(code) between 1 and 100
    and char_length(reason) <= 2100 and char_length(received_from) <= 1024 and char_length(content_type) <= 255 and char_length(message_key) <= 1024
    and octet_length(body) <= 16777216 and char_length(decided_by) between 1 and 255 and char_length(decided_reason) <= 2000)
);
--> statement-breakpoint

-- Indexes.

create index quarantined_messages_state_idx on bus.quarantined_messages (state, id);
--> statement-breakpoint

-- Row security. Nobody knows whose a message is that could not be read: a tenant reads none.

alter table bus.quarantined_messages enable row level security;
--> statement-breakpoint

-- Functions: what is kept how long.

-- The policy that applies: of each item the longest time that a service has asked for, or its default. A log that no service has asked to
-- delete is kept. The ledger is kept no longer than the log, and the attempts no longer than the ledger. Dead letters hold their events for
-- ever, unless every service that deletes the log says how long. Only reads.
create or replace function bus.retention_policy() returns jsonb language sql stable
begin atomic
  select jsonb_build_object(
    'logDays', p.log, 'ledgerDays', least(p.ledger, p.log), 'attemptsDays', least(p.attempts, p.ledger, p.log),
    'keysDays', coalesce(p.keys, 30), 'rollupsDays', coalesce(p.rollups, 30), 'auditDays', coalesce(p.audit, 365),
    'operationsDays', coalesce(p.operations, 90), 'quarantineDays', coalesce(p.quarantine, 90), 'deadLettersDays', p.dead, 'archive', coalesce(p.archive, false))
  from (
    select max((r.policy ->> 'logDays')::int) as log, max((r.policy ->> 'ledgerDays')::int) as ledger,
      max((r.policy ->> 'attemptsDays')::int) as attempts, max((r.policy ->> 'keysDays')::int) as keys,
      max((r.policy ->> 'rollupsDays')::int) as rollups, max((r.policy ->> 'auditDays')::int) as audit,
      max((r.policy ->> 'operationsDays')::int) as operations, max((r.policy ->> 'quarantineDays')::int) as quarantine,
      case when bool_and(r.policy ? 'deadLettersDays') filter (where r.policy ? 'logDays') then max((r.policy ->> 'deadLettersDays')::int) end as dead,
      bool_or((r.policy ->> 'archive')::boolean) as archive
    from bus.retention_policies r
  ) p;
end;
--> statement-breakpoint

-- Deletes at most so many rows of a kind that are older than the policy keeps them, or whose events were dropped, and returns how many.
--   rollups, audit, operations   by age; an audit record or an operation that is under way stays
--   quarantine   by age, since the message last came and was last decided about; one that is to be tried again stays
--   cancellations, event_copies, failing   of dropped events: of dead letters that no longer hold their events, with their jobs
--   receipts, receipt_batches, attempts   of dropped events, in the default partitions
-- Locks: the rows that it deletes. Repeating: what is deleted is gone; call it until it returns 0.
create or replace function bus.prune_rows(of_kind text, max_count int) returns bigint language plpgsql security definer as $body$
declare
  kept jsonb := bus.retention_policy();
  dropped uuid := (select bus.uuid_v7_floor(s.dropped_before) from bus.retention_state s);
  pruned bigint := 0;
  queue record;
begin
  if of_kind = 'rollups' then
    delete from bus.rollups r using (
      select x.minute, x.subscription_id, x.instance_id from bus.rollups x
      where x.minute < now() - make_interval(days => (kept ->> 'rollupsDays')::int) order by 1 limit max_count) old
    where r.minute = old.minute and r.subscription_id = old.subscription_id and r.instance_id = old.instance_id;
  elsif of_kind = 'audit' then
    delete from bus.audit a where a.id in (
      select x.id from bus.audit x
      where x.id < bus.uuid_v7_floor(now() - make_interval(days => (kept ->> 'auditDays')::int))
        and (x.finished_at is not null or x.operation_id is null)
      order by 1 limit max_count);
  elsif of_kind = 'operations' then
    delete from bus.operations o where o.id in (
      select x.id from bus.operations x
      where x.id < bus.uuid_v7_floor(now() - make_interval(days => (kept ->> 'operationsDays')::int))
        and x.finished_at < now() - make_interval(days => (kept ->> 'operationsDays')::int)
      order by 1 limit max_count);
  elsif of_kind = 'quarantine' then
    delete from bus.quarantined_messages q where q.id in (
      select x.id from bus.quarantined_messages x
      where x.last_received_at < now() - make_interval(days => (kept ->> 'quarantineDays')::int)
        and x.state <> 'retrying' and coalesce(x.decided_at, x.last_received_at) < now() - make_interval(days => (kept ->> 'quarantineDays')::int)
      limit max_count);
  elsif dropped is null then
    return 0;
  elsif of_kind in ('cancellations', 'event_copies') then
    execute format($statement$
      delete from bus.%1$I c where c.event_id in (
        select x.event_id from bus.%1$I x
        where x.event_id < %2$L and not exists (select from bus.partitions_of('events') p where x.event_id >= p.lower_bound and x.event_id < p.upper_bound)
          and not exists (select from bus.events_default d where d.id = x.event_id)
        order by 1 limit %3$s)
    $statement$, of_kind, dropped, max_count);
  elsif of_kind = 'failing' then
    for queue in
      select s.id, 'bus.' || s.name || '.dead' as name from bus.subscriptions s
      union all select r.id, 'bus.' || s.name || '.dead' from bus.replays r join bus.subscriptions s on s.id = r.subscription_id
      order by 1
    loop
      execute format($statement$
        with gone as (
          delete from bus.failing f where f.subscription_id = %1$s and f.event_id in (
            select x.event_id from bus.failing x
            where x.subscription_id = %1$s and x.event_id < %2$L and x.state = 'dead'
              and not exists (select from bus.partitions_of('events') p where x.event_id >= p.lower_bound and x.event_id < p.upper_bound)
              and not exists (select from bus.events_default d where d.id = x.event_id)
            order by 1 limit %3$s)
          returning f.job_id
        ), jobs as (
          delete from pgboss.job b using gone g where b.name = %4$L and b.id = g.job_id
        ), roots as (
          delete from pgboss.job b using gone g where b.name = %4$L and b.source_root_id = g.job_id and b.id <> g.job_id
        )
        select count(*) from gone
      $statement$, queue.id, dropped, max_count, queue.name) into pruned;
      exit when pruned > 0;
    end loop;
    return pruned;
  elsif of_kind in ('receipts', 'receipt_batches', 'attempts') then
    execute format(
      'delete from bus.%1$I d where d.ctid = any (array(select x.ctid from bus.%1$I x where x.event_id < %2$L limit %3$s))',
      of_kind || '_default', dropped, max_count);
  else
    raise exception 'Unknown kind of rows: %', of_kind using errcode = '22023';
  end if;
  get diagnostics pruned = row_count;
  return pruned;
end
$body$ set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan;
