-- Subscriptions at run time: options that an operator sets until a time, and what was removed.

-- The options that an operator has set with bus.subscriptions.setOptions: an object with some of concurrency, retry and paused. They stand
-- in place of those of the code until overrides_until. A row keeps them after that time until a leader clears it.
alter table bus.subscriptions
  add column overrides jsonb,
  add column overridden_by text,
  add column override_reason text,
  add column overridden_at timestamp (6) with time zone,
  add column overrides_until timestamp (6) with time zone;
--> statement-breakpoint

-- The subscriptions that were removed: which name the id in receipts and attempts stood for.
create table bus.removed_subscriptions (
  id integer primary key,
  name text not null,
  service text not null,
  registered_at timestamp (6) with time zone not null,
  removed_at timestamp (6) with time zone default now() not null,
  removed_by text not null
);
