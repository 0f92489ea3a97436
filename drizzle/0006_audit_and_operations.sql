-- What people and programs change, and the long work that they ask for.
--
-- * bus.audit: one row for every change by a person or a program, written in the transaction of the change, before it.
-- * bus.operations: work over many events that goes on by itself: redriving or discarding dead letters, replays, catching up, removing a
--   subscription. Any process does the next part of it, in one transaction that also moves its cursor, so that a crash loses and repeats
--   nothing.
--
-- See docs/adr/0033-operations.md.

-- Tables. src/audit/schema.ts and src/operations/schema.ts describe their columns.

create table bus.audit (
  id uuid primary key default bus.uuid_v7() not null,
  at timestamp (6) with time zone default clock_timestamp() not null,
  actor text not null,
  action text not null,
  subscription text,
  tenant_id text,
  event_id uuid,
  operation_id uuid,
  reason text,
  selection jsonb,
  change jsonb,
  expected jsonb,
  outcome jsonb,
  finished_at timestamp (6) with time zone,
  constraint audit_text_lengths check (char_length(actor) between 1 and 255 and char_length(action) between 1 and 100 and char_length(reason) <= 2000)
);
--> statement-breakpoint
create table bus.operations (
  id uuid primary key default bus.uuid_v7() not null,
  kind text not null,
  state text default 'running' not null,
  actor text not null,
  reason text,
  state_actor text,
  state_reason text,
  selection jsonb not null,
  options jsonb default '{}' not null,
  subscription_ids integer[] not null,
  rate integer,
  expected jsonb,
  total bigint,
  counts jsonb default '{}' not null,
  progress jsonb default '{}' not null,
  error text,
  error_count integer default 0 not null,
  next_part_at timestamp (6) with time zone default now() not null,
  created_at timestamp (6) with time zone default now() not null,
  updated_at timestamp (6) with time zone default now() not null,
  finished_at timestamp (6) with time zone,
  constraint operations_kind_check check (kind in ('redrive', 'discard', 'replay', 'catch-up', 'remove')),
  constraint operations_state_check check (state in ('running', 'paused', 'stopped', 'done', 'cancelled'))
);
--> statement-breakpoint

-- Indexes.

create index audit_subscription_idx on bus.audit (subscription, id) where subscription is not null;
--> statement-breakpoint
create index audit_event_idx on bus.audit (event_id, id) where event_id is not null;
--> statement-breakpoint
create index audit_operation_idx on bus.audit (operation_id) where operation_id is not null;
--> statement-breakpoint
create index operations_running_idx on bus.operations (next_part_at) where state = 'running';
--> statement-breakpoint

-- Row security. Both say what concerns all tenants: a tenant reads neither.

alter table bus.audit enable row level security;
--> statement-breakpoint
alter table bus.operations enable row level security;
