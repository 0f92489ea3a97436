-- Statistics over longer times and by tenant, and the canary.
--
-- * bus.hourly_rollups: the sums of bus.rollups for each hour that is over, so that days and weeks are read from few rows.
-- * bus.tenant_rollups: counts by hour and tenant.
-- * bus.canaries: the test events that go through the whole bus, and when each step saw them.
--
-- docs/guide/health.md describes how to read them.

-- Tables. src/delivery/ledger/schema.ts and src/operations/schema.ts describe their columns.

create table bus.hourly_rollups (
  hour timestamp (6) with time zone not null,
  subscription_id integer not null,
  published bigint default 0 not null,
  delivered bigint default 0 not null,
  failed bigint default 0 not null,
  dead bigint default 0 not null,
  expired bigint default 0 not null,
  wait_bins bigint[] not null,
  run_bins bigint[] not null,
  constraint hourly_rollups_hour_subscription_id_pk primary key (hour, subscription_id)
);
--> statement-breakpoint
create table bus.tenant_rollups (
  hour timestamp (6) with time zone not null,
  tenant_id text not null,
  published bigint default 0 not null,
  delivered bigint default 0 not null,
  failed bigint default 0 not null,
  dead bigint default 0 not null,
  expired bigint default 0 not null,
  constraint tenant_rollups_hour_tenant_id_pk primary key (hour, tenant_id)
) with (fillfactor = 80);
--> statement-breakpoint
create table bus.canaries (
  event_id uuid primary key not null,
  service text not null,
  is_scheduled boolean not null,
  published_at timestamp (6) with time zone default clock_timestamp() not null,
  dispatched_at timestamp (6) with time zone,
  fetched_at timestamp (6) with time zone,
  handled_at timestamp (6) with time zone,
  received_at timestamp (6) with time zone,
  failed_step text,
  removed_at timestamp (6) with time zone,
  constraint canaries_failed_step_check check (failed_step in ('relay', 'worker', 'receipt'))
);
--> statement-breakpoint

-- Indexes.

create index tenant_rollups_tenant_idx on bus.tenant_rollups (tenant_id, hour);
--> statement-breakpoint
create index canaries_published_idx on bus.canaries (published_at);
--> statement-breakpoint
create index operations_stopped_idx on bus.operations (updated_at) where state = 'stopped';
--> statement-breakpoint

-- Functions.

-- Removes a canary event that is over from the log and the ledger: it says nothing about the service. Runs as the owner of the log,
-- because workers may not delete from it. Returns whether it did; no if it is removed already, is another event, or has no receipt yet.
-- Locks: the row of the canary, skipped if another process has it; then its rows, in one partition each. Repeating: returns false.
create function bus.remove_canary(of_event uuid) returns boolean language plpgsql security definer as $body$
declare
  canary_subscription int := (select s.id from bus.subscriptions s where s.name = 'bossbus.canary');
begin
  perform from bus.canaries c where c.event_id = of_event and c.removed_at is null for update skip locked;
  if not found or not exists (select from bus.received_events(canary_subscription, array[of_event])) then
    return false;
  end if;
  delete from bus.receipts r where r.subscription_id = canary_subscription and r.event_id = of_event;
  delete from bus.attempts a where a.event_id = of_event and a.subscription_id = canary_subscription;
  delete from bus.events e where e.id = of_event and e.type = 'bossbus.canary';
  update bus.canaries c set removed_at = clock_timestamp() where c.event_id = of_event;
  return true;
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan;
--> statement-breakpoint

-- Row security. A tenant reads its own counts.

alter table bus.hourly_rollups enable row level security;
--> statement-breakpoint
alter table bus.tenant_rollups enable row level security;
--> statement-breakpoint
alter table bus.canaries enable row level security;
--> statement-breakpoint
create policy tenant_reads on bus.tenant_rollups for select to public using (tenant_id = (select bus.current_tenant()));
--> statement-breakpoint

-- Privileges. drizzle/roles.sql grants the rest to roles, by name.

revoke execute on function bus.remove_canary(uuid) from public;
