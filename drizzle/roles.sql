-- What each role of the bus may do. bus.migrate() creates the roles and runs this as the owner of the schema `bus`. If the
-- owner may not create roles, an administrator creates them once for the cluster:
--
--   create role bus_publisher nologin;
--   create role bus_tenant nologin;
--   create role bus_worker nologin;
--   create role bus_operator nologin;
--   grant bus_tenant to <the role that bus.migrate() runs as>;
--
-- Roles belong to the cluster, grants to the database. A grant or policy that exists is not written again, so this may run any
-- number of times. It revokes nothing.
do $body$
declare
  wanted record;
  -- The schema of pg-boss.
  boss regnamespace := quote_ident(bus.boss_schema())::regnamespace;
begin
  for wanted in
    with wanted (role, kind, object, privileges) as (values
      ('bus_publisher', 'schema', 'bus', 'usage'),
      ('bus_tenant', 'schema', 'bus', 'usage'),
      ('bus_worker', 'schema', 'bus', 'usage'),
      ('bus_operator', 'schema', 'bus', 'usage'),

      -- Publishes and cancels for any tenant, in the caller's transaction; reads nothing.
      ('bus_publisher', 'table', 'bus.events', 'insert'),
      ('bus_publisher', 'function', 'bus.publish(jsonb)', 'execute'),
      ('bus_publisher', 'function', 'bus.publish_in_transaction', 'execute'),
      ('bus_publisher', 'function', 'bus.store_events', 'execute'),
      ('bus_publisher', 'function', 'bus.claim_event_keys', 'execute'),
      ('bus_publisher', 'function', 'bus.confirm_stored', 'execute'),
      ('bus_publisher', 'function', 'bus.name_transaction', 'execute'),
      ('bus_publisher', 'function', 'bus.cancel', 'execute'),
      ('bus_publisher', 'function', 'bus.cancel_in_transaction', 'execute'),

      -- Reads the rows of the tenant that is set for the transaction; writes nothing.
      ('bus_tenant', 'table', 'bus.events', 'select'),
      ('bus_tenant', 'table', 'bus.cancellations', 'select'),
      ('bus_tenant', 'table', 'bus.deliveries', 'select'),
      ('bus_tenant', 'table', 'bus.event_keys', 'select'),
      ('bus_tenant', 'function', 'bus.partition_bounds', 'execute'),
      ('bus_tenant', 'function', 'bus.subscription_ids', 'execute'),
      ('bus_tenant', 'function', 'bus.tenant_events_in_state', 'execute'),
      ('bus_tenant', 'function', 'bus.tenant_events_with_state', 'execute'),
      ('bus_tenant', 'function', 'bus.tenant_event_facts', 'execute'),
      ('bus_tenant', 'table', 'bus.tenant_rollups', 'select'),
      ('bus_tenant', 'function', 'bus.tenant_deliveries', 'execute'),
      ('bus_tenant', 'function', 'bus.tenant_dead_letters', 'execute'),
      ('bus_tenant', 'function', 'bus.tenant_delivery_stats', 'execute'),
      ('bus_tenant', 'function', 'bus.tenant_replays', 'execute'),
      ('bus_tenant', 'function', 'bus.tenant_event_states', 'execute'),
      ('bus_tenant', 'function', 'bus.tenant_dead_letter_groups', 'execute'),
      ('bus_tenant', 'function', 'bus.tenant_operations', 'execute'),

      -- Relay, workers and maintenance of a service, and what its handlers publish. Cannot change a table's definition.
      ('bus_worker', 'table', 'bus.migrations', 'select'),
      ('bus_worker', 'table', 'bus.events', 'select,insert'),
      ('bus_worker', 'table', 'bus.outbox', 'select,insert,update,delete'),
      ('bus_worker', 'sequence', 'bus.outbox_position_seq', 'usage'),
      ('bus_worker', 'table', 'bus.deliveries', 'select,insert'),
      ('bus_worker', 'table', 'bus.receipts', 'select,insert,delete'),
      ('bus_worker', 'table', 'bus.receipt_batches', 'select,insert'),
      ('bus_worker', 'table', 'bus.attempts', 'select,insert'),
      ('bus_worker', 'table', 'bus.failing', 'select,insert,update,delete'),
      ('bus_worker', 'table', 'bus.event_copies', 'select'),
      ('bus_worker', 'table', 'bus.dead_letter_calls', 'select,insert,update,delete'),
      ('bus_worker', 'table', 'bus.dead_letter_alerts', 'select,insert,update'),
      ('bus_worker', 'table', 'bus.rollups', 'select,insert,update,delete'),
      ('bus_worker', 'table', 'bus.hourly_rollups', 'select,insert,update,delete'),
      ('bus_worker', 'table', 'bus.tenant_rollups', 'select,insert,update,delete'),
      ('bus_worker', 'table', 'bus.canaries', 'select,insert,update,delete'),
      ('bus_worker', 'table', 'bus.quarantined_messages', 'select,insert,update'),
      ('bus_worker', 'function', 'bus.remove_canary', 'execute'),
      ('bus_worker', 'table', 'bus.ordered_keys', 'select,insert,update,delete'),
      ('bus_worker', 'table', 'bus.ordered_events', 'select,insert,update,delete'),
      ('bus_worker', 'table', 'bus.subscriptions', 'select,insert,update,delete'),
      ('bus_worker', 'table', 'bus.removed_subscriptions', 'select,insert,update'),
      ('bus_worker', 'sequence', 'bus.subscription_revision', 'usage'),
      ('bus_worker', 'table', 'bus.declarations', 'select,insert,update,delete'),
      ('bus_worker', 'table', 'bus.instances', 'select,insert,update,delete'),
      ('bus_worker', 'table', 'bus.catalogue', 'select,insert,update'),
      ('bus_worker', 'table', 'bus.audit', 'select,insert,update'),
      ('bus_worker', 'table', 'bus.operations', 'select,insert,update'),
      ('bus_worker', 'table', 'bus.replays', 'select,insert'),
      ('bus_worker', 'table', 'bus.replay_outcomes', 'select,insert,delete'),
      ('bus_worker', 'table', 'bus.catch_up_dispatched', 'select,insert,delete'),
      ('bus_worker', 'table', 'bus.cancellations', 'select'),
      ('bus_worker', 'function', 'bus.enqueue_replayed', 'execute'),
      ('bus_worker', 'table', 'bus.retention_policies', 'select,insert,update,delete'),
      ('bus_worker', 'table', 'bus.retention_state', 'select,update'),
      ('bus_worker', 'table', 'bus.partition_spans', 'select'),
      ('bus_worker', 'table', 'bus.archives', 'select,insert,update'),
      ('bus_worker', 'table', 'bus.archive_files', 'select,insert,update,delete'),
      ('bus_worker', 'table', 'bus.archive_erasures', 'select,insert,update'),
      ('bus_worker', 'function', 'bus.retention_policy', 'execute'),
      ('bus_worker', 'function', 'bus.partitions_of', 'execute'),
      ('bus_worker', 'function', 'bus.scheduled_until', 'execute'),
      ('bus_worker', 'function', 'bus.range_holds', 'execute'),
      ('bus_worker', 'function', 'bus.drop_range', 'execute'),
      ('bus_worker', 'function', 'bus.prune_event_keys', 'execute'),
      ('bus_worker', 'function', 'bus.prune_rows', 'execute'),
      ('bus_worker', 'function', 'bus.adopt_default_partition', 'execute'),
      ('bus_worker', 'function', 'bus.publish(jsonb)', 'execute'),
      ('bus_worker', 'function', 'bus.publish_in_transaction', 'execute'),
      ('bus_worker', 'function', 'bus.store_events', 'execute'),
      ('bus_worker', 'function', 'bus.claim_event_keys', 'execute'),
      ('bus_worker', 'function', 'bus.confirm_stored', 'execute'),
      ('bus_worker', 'function', 'bus.name_transaction', 'execute'),
      ('bus_worker', 'function', 'bus.cancel', 'execute'),
      ('bus_worker', 'function', 'bus.cancel_in_transaction', 'execute'),
      ('bus_worker', 'function', 'bus.create_partitions', 'execute'),
      ('bus_worker', 'function', 'bus.partition_state', 'execute'),
      ('bus_worker', 'function', 'bus.repair_sequences', 'execute'),
      ('bus_worker', 'function', 'bus.ordering_key_hash', 'execute'),
      ('bus_worker', 'function', 'bus.begin_ordered_keys', 'execute'),
      ('bus_worker', 'function', 'bus.enqueue_ordered', 'execute'),
      ('bus_worker', 'function', 'bus.lock_ordered_keys', 'execute'),
      ('bus_worker', 'function', 'bus.take_held_events', 'execute'),
      ('bus_worker', 'function', 'bus.advance_ordered_keys', 'execute'),
      ('bus_worker', 'function', 'bus.fail_ordered_keys', 'execute'),
      ('bus_worker', 'function', 'bus.matching_events', 'execute'),
      ('bus_worker', 'function', 'bus.read_each', 'execute'),
      ('bus_worker', 'function', 'bus.received_events', 'execute'),
      ('bus_worker', 'function', 'bus.record_failures', 'execute'),
      ('bus_worker', 'function', 'bus.record_recoveries', 'execute'),
      ('bus_worker', 'function', 'bus.pack_receipts', 'execute'),
      ('bus_worker', 'function', 'bus.record_known_failures', 'execute'),
      ('bus_worker', 'function', 'bus.is_single_event', 'execute'),
      ('bus_worker', 'function', 'bus.last_failure', 'execute'),
      ('bus_worker', 'function', 'bus.read_held_events', 'execute'),
      ('bus_worker', 'function', 'bus.dead_letters', 'execute'),
      ('bus_worker', 'function', 'bus.dead_letter_groups', 'execute'),
      ('bus_worker', 'function', 'bus.dead_letter_condition', 'execute'),
      ('bus_worker', 'function', 'bus.dead_letter_rows', 'execute'),
      ('bus_worker', 'function', 'bus.count_dead_letters', 'execute'),
      ('bus_worker', 'function', 'bus.json_texts', 'execute'),
      ('bus_worker', 'function', 'bus.copy_event', 'execute'),
      ('bus_worker', 'function', 'bus.enqueue_copy', 'execute'),
      -- For the metrics of a process, which are of all subscriptions. They run with the rights of the caller.
      ('bus_worker', 'function', 'bus.read_depth', 'execute'),
      ('bus_worker', 'function', 'bus.read_lag', 'execute'),
      ('bus_worker', 'function', 'bus.read_tenants', 'execute'),

      -- Reads everything, of all tenants, and repairs deliveries; publishes nothing.
      ('bus_operator', 'table', 'bus.migrations', 'select'),
      ('bus_operator', 'table', 'bus.events', 'select'),
      ('bus_operator', 'table', 'bus.event_keys', 'select'),
      ('bus_operator', 'table', 'bus.outbox', 'select'),
      ('bus_operator', 'table', 'bus.cancellations', 'select'),
      ('bus_operator', 'table', 'bus.deliveries', 'select'),
      ('bus_operator', 'table', 'bus.receipts', 'select,insert'),
      ('bus_operator', 'table', 'bus.receipt_batches', 'select'),
      ('bus_operator', 'table', 'bus.attempts', 'select'),
      ('bus_operator', 'table', 'bus.failing', 'select,update,delete'),
      ('bus_operator', 'table', 'bus.event_copies', 'select'),
      ('bus_operator', 'table', 'bus.dead_letter_calls', 'select'),
      ('bus_operator', 'table', 'bus.dead_letter_alerts', 'select'),
      ('bus_operator', 'table', 'bus.rollups', 'select'),
      ('bus_operator', 'table', 'bus.hourly_rollups', 'select'),
      ('bus_operator', 'table', 'bus.tenant_rollups', 'select'),
      ('bus_operator', 'table', 'bus.canaries', 'select'),
      ('bus_operator', 'table', 'bus.quarantined_messages', 'select,update'),
      ('bus_operator', 'table', 'bus.source_rules', 'select'),
      ('bus_operator', 'table', 'bus.erasures', 'select,insert,update'),
      ('bus_operator', 'table', 'bus.audit', 'select,insert,update'),
      ('bus_operator', 'table', 'bus.operations', 'select,insert,update'),
      ('bus_operator', 'table', 'bus.replays', 'select,insert'),
      ('bus_operator', 'table', 'bus.replay_outcomes', 'select'),
      ('bus_operator', 'table', 'bus.catch_up_dispatched', 'select,delete'),
      ('bus_operator', 'table', 'bus.catalogue', 'select'),
      ('bus_operator', 'table', 'bus.retention_policies', 'select,insert,update,delete'),
      ('bus_operator', 'table', 'bus.retention_state', 'select,update'),
      ('bus_operator', 'table', 'bus.partition_spans', 'select'),
      ('bus_operator', 'table', 'bus.archives', 'select,insert,update'),
      ('bus_operator', 'table', 'bus.archive_files', 'select,insert,update,delete'),
      ('bus_operator', 'table', 'bus.archive_erasures', 'select,insert,update'),
      ('bus_operator', 'function', 'bus.retention_policy', 'execute'),
      ('bus_operator', 'function', 'bus.partitions_of', 'execute'),
      ('bus_operator', 'function', 'bus.scheduled_until', 'execute'),
      ('bus_operator', 'function', 'bus.range_holds', 'execute'),
      ('bus_operator', 'function', 'bus.drop_range', 'execute'),
      ('bus_operator', 'function', 'bus.prune_event_keys', 'execute'),
      ('bus_operator', 'function', 'bus.prune_rows', 'execute'),
      ('bus_operator', 'function', 'bus.adopt_default_partition', 'execute'),
      ('bus_operator', 'function', 'bus.set_partition_span', 'execute'),
      ('bus_operator', 'function', 'bus.erase_events', 'execute'),
      ('bus_operator', 'function', 'bus.scrub_failures', 'execute'),
      ('bus_operator', 'table', 'bus.ordered_keys', 'select,update,delete'),
      ('bus_operator', 'table', 'bus.ordered_events', 'select,update,delete'),
      ('bus_operator', 'table', 'bus.subscriptions', 'select,update,delete'),
      ('bus_operator', 'table', 'bus.declarations', 'select,delete'),
      ('bus_operator', 'table', 'bus.removed_subscriptions', 'select,insert,update'),
      ('bus_operator', 'table', 'bus.instances', 'select'),
      ('bus_operator', 'sequence', 'bus.subscription_revision', 'usage'),
      ('bus_operator', 'function', 'bus.cancel', 'execute'),
      ('bus_operator', 'function', 'bus.event_deliveries', 'execute'),
      ('bus_operator', 'function', 'bus.event_states', 'execute'),
      ('bus_operator', 'function', 'bus.timeline_for_tenant', 'execute'),
      ('bus_operator', 'function', 'bus.received_events', 'execute'),
      ('bus_operator', 'function', 'bus.partition_bounds', 'execute'),
      ('bus_operator', 'function', 'bus.find_in_outbox', 'execute'),
      ('bus_operator', 'function', 'bus.event_jobs', 'execute'),
      ('bus_operator', 'function', 'bus.judge_payload', 'execute'),
      ('bus_operator', 'function', 'bus.event_facts', 'execute'),
      ('bus_operator', 'function', 'bus.events_in_state', 'execute'),
      ('bus_operator', 'function', 'bus.events_with_state', 'execute'),
      ('bus_operator', 'function', 'bus.subscription_ids', 'execute'),
      ('bus_operator', 'function', 'bus.find_jobs', 'execute'),
      ('bus_operator', 'function', 'bus.event_replays', 'execute'),
      ('bus_operator', 'function', 'bus.matching_events', 'execute'),
      ('bus_operator', 'function', 'bus.dead_letters', 'execute'),
      ('bus_operator', 'function', 'bus.dead_letter_groups', 'execute'),
      ('bus_operator', 'function', 'bus.dead_letter_condition', 'execute'),
      ('bus_operator', 'function', 'bus.dead_letter_rows', 'execute'),
      ('bus_operator', 'function', 'bus.count_dead_letters', 'execute'),
      ('bus_operator', 'function', 'bus.json_texts', 'execute'),
      ('bus_operator', 'function', 'bus.copy_event', 'execute'),
      ('bus_operator', 'function', 'bus.enqueue_copy', 'execute'),
      ('bus_operator', 'function', 'bus.scrub_attempts', 'execute'),
      ('bus_operator', 'function', 'bus.last_failure', 'execute'),
      ('bus_operator', 'function', 'bus.read_each', 'execute'),
      ('bus_operator', 'function', 'bus.create_partitions', 'execute'),
      ('bus_operator', 'function', 'bus.partition_state', 'execute'),
      ('bus_operator', 'function', 'bus.ordering_key_hash', 'execute'),
      ('bus_operator', 'function', 'bus.begin_ordered_keys', 'execute'),
      ('bus_operator', 'function', 'bus.advance_ordered_keys', 'execute'),
      ('bus_operator', 'function', 'bus.fail_ordered_keys', 'execute'),
      -- What dashboards read.
      ('bus_operator', 'table', 'bus.v_depth', 'select'),
      ('bus_operator', 'table', 'bus.v_lag', 'select'),
      ('bus_operator', 'table', 'bus.v_throughput', 'select'),
      ('bus_operator', 'table', 'bus.v_latency', 'select'),
      ('bus_operator', 'table', 'bus.v_dead_by_error', 'select'),
      ('bus_operator', 'table', 'bus.v_retries', 'select'),
      ('bus_operator', 'table', 'bus.v_active', 'select'),
      ('bus_operator', 'table', 'bus.v_instances', 'select'),
      ('bus_operator', 'table', 'bus.v_subscription_state', 'select'),
      ('bus_operator', 'table', 'bus.v_tenants', 'select'),
      ('bus_operator', 'table', 'bus.v_blocked_keys', 'select'),
      ('bus_operator', 'table', 'bus.v_scheduled', 'select'),
      ('bus_operator', 'table', 'bus.v_storage', 'select'),
      ('bus_operator', 'table', 'bus.v_recent_failures', 'select'),
      ('bus_operator', 'table', 'bus.v_events_by_key', 'select'),
      ('bus_operator', 'function', 'bus.read_depth', 'execute'),
      ('bus_operator', 'function', 'bus.read_lag', 'execute'),
      ('bus_operator', 'function', 'bus.read_held_events', 'execute'),
      ('bus_operator', 'function', 'bus.read_dead_by_error', 'execute'),
      ('bus_operator', 'function', 'bus.read_recent_failures', 'execute'),
      ('bus_operator', 'function', 'bus.read_retries', 'execute'),
      ('bus_operator', 'function', 'bus.read_active', 'execute'),
      ('bus_operator', 'function', 'bus.read_blocked_keys', 'execute'),
      ('bus_operator', 'function', 'bus.read_scheduled', 'execute'),
      ('bus_operator', 'function', 'bus.read_events_by_key', 'execute'),
      ('bus_operator', 'function', 'bus.read_tenants', 'execute'),
      ('bus_operator', 'function', 'bus.read_storage', 'execute')
    ), each as (
      select w.role, w.kind, p.privilege,
        case w.kind when 'function' then f.oid::regprocedure::text else w.object end as object
      from wanted w
      cross join lateral regexp_split_to_table(w.privileges, ',') as p (privilege)
      -- A name without arguments means the functions of that name.
      left join pg_catalog.pg_proc f on w.kind = 'function'
        and f.pronamespace = 'bus'::regnamespace and 'bus.' || f.proname = split_part(w.object, '(', 1)
      union all
      -- pg-boss's own tables: jobs of all tenants.
      select r.role, case c.relkind when 'S' then 'sequence' else 'table' end, p.privilege, c.oid::regclass::text
      from (values ('bus_worker'), ('bus_operator')) as r (role)
      cross join pg_catalog.pg_class c
      cross join lateral regexp_split_to_table(case c.relkind when 'S' then 'usage' else 'select,insert,update,delete' end, ',') as p (privilege)
      where c.relnamespace = boss and c.relkind in ('r', 'p', 'v', 'S')
      union all
      values ('bus_worker', 'schema', 'usage', boss::text), ('bus_operator', 'schema', 'usage', boss::text)
    )
    select format('grant %s on %s %s to %I', privilege, kind, object, role) as statement
    from each
    where not case kind
      when 'schema' then has_schema_privilege(role, object::regnamespace, privilege)
      when 'sequence' then has_sequence_privilege(role, object, privilege)
      when 'function' then has_function_privilege(role, object, privilege)
      else has_table_privilege(role, object, privilege) end
  loop
    execute wanted.statement;
  end loop;

  -- For queues that this role creates later.
  if has_schema_privilege(boss, 'create') and not exists (
    select from pg_catalog.pg_default_acl d, pg_catalog.aclexplode(d.defaclacl) a
    where d.defaclnamespace = boss and d.defaclobjtype = 'r'
      and d.defaclrole = (select r.oid from pg_catalog.pg_roles r where r.rolname = current_user) and a.grantee = 'bus_worker'::regrole
  ) then
    execute format('alter default privileges in schema %s grant select, insert, update, delete on tables to bus_worker, bus_operator', boss);
  end if;

  -- Row security: these roles read and write the rows of all tenants.
  for wanted in
    select format('create policy %I on %s for %s to %I %s', p.policy, p.object, p.command, p.role,
      case p.command
        when 'select' then 'using (true)' when 'update' then 'using (true)' when 'delete' then 'using (true)'
        when 'insert' then 'with check (true)' else 'using (true) with check (true)' end) as statement
    from (values
      ('worker_reads', 'bus.events', 'select', 'bus_worker'),
      ('worker_uses', 'bus.outbox', 'all', 'bus_worker'),
      ('worker_uses', 'bus.receipts', 'all', 'bus_worker'),
      ('worker_uses', 'bus.receipt_batches', 'all', 'bus_worker'),
      ('worker_uses', 'bus.attempts', 'all', 'bus_worker'),
      ('worker_uses', 'bus.failing', 'all', 'bus_worker'),
      ('worker_reads', 'bus.event_copies', 'select', 'bus_worker'),
      ('worker_uses', 'bus.dead_letter_calls', 'all', 'bus_worker'),
      ('worker_uses', 'bus.dead_letter_alerts', 'all', 'bus_worker'),
      ('worker_uses', 'bus.rollups', 'all', 'bus_worker'),
      ('worker_uses', 'bus.hourly_rollups', 'all', 'bus_worker'),
      ('worker_uses', 'bus.tenant_rollups', 'all', 'bus_worker'),
      ('worker_uses', 'bus.canaries', 'all', 'bus_worker'),
      ('worker_uses', 'bus.quarantined_messages', 'all', 'bus_worker'),
      ('worker_uses', 'bus.ordered_keys', 'all', 'bus_worker'),
      ('worker_uses', 'bus.ordered_events', 'all', 'bus_worker'),
      ('worker_uses', 'bus.audit', 'all', 'bus_worker'),
      ('worker_uses', 'bus.operations', 'all', 'bus_worker'),
      ('worker_uses', 'bus.replays', 'all', 'bus_worker'),
      ('worker_uses', 'bus.replay_outcomes', 'all', 'bus_worker'),
      ('worker_uses', 'bus.catch_up_dispatched', 'all', 'bus_worker'),
      ('worker_reads', 'bus.cancellations', 'select', 'bus_worker'),
      ('operator_uses', 'bus.audit', 'all', 'bus_operator'),
      ('operator_uses', 'bus.operations', 'all', 'bus_operator'),
      ('operator_uses', 'bus.replays', 'all', 'bus_operator'),
      ('operator_reads', 'bus.replay_outcomes', 'select', 'bus_operator'),
      ('operator_uses', 'bus.catch_up_dispatched', 'all', 'bus_operator'),
      ('worker_uses', 'bus.retention_policies', 'all', 'bus_worker'),
      ('operator_uses', 'bus.retention_policies', 'all', 'bus_operator'),
      ('worker_uses', 'bus.retention_state', 'all', 'bus_worker'),
      ('operator_uses', 'bus.retention_state', 'all', 'bus_operator'),
      ('worker_uses', 'bus.partition_spans', 'all', 'bus_worker'),
      ('operator_uses', 'bus.partition_spans', 'all', 'bus_operator'),
      ('worker_uses', 'bus.archives', 'all', 'bus_worker'),
      ('operator_uses', 'bus.archives', 'all', 'bus_operator'),
      ('worker_uses', 'bus.archive_files', 'all', 'bus_worker'),
      ('operator_uses', 'bus.archive_files', 'all', 'bus_operator'),
      ('worker_uses', 'bus.archive_erasures', 'all', 'bus_worker'),
      ('operator_uses', 'bus.archive_erasures', 'all', 'bus_operator'),
      ('operator_reads', 'bus.events', 'select', 'bus_operator'),
      ('operator_reads', 'bus.event_keys', 'select', 'bus_operator'),
      ('operator_reads', 'bus.outbox', 'select', 'bus_operator'),
      ('operator_reads', 'bus.cancellations', 'select', 'bus_operator'),
      ('operator_uses', 'bus.erasures', 'all', 'bus_operator'),
      ('operator_reads', 'bus.receipts', 'select', 'bus_operator'),
      ('operator_discards', 'bus.receipts', 'insert', 'bus_operator'),
      ('operator_reads', 'bus.event_copies', 'select', 'bus_operator'),
      ('operator_reads', 'bus.dead_letter_calls', 'select', 'bus_operator'),
      ('operator_reads', 'bus.dead_letter_alerts', 'select', 'bus_operator'),
      ('operator_reads', 'bus.receipt_batches', 'select', 'bus_operator'),
      ('operator_reads', 'bus.attempts', 'select', 'bus_operator'),
      ('operator_uses', 'bus.failing', 'all', 'bus_operator'),
      ('operator_reads', 'bus.rollups', 'select', 'bus_operator'),
      ('operator_reads', 'bus.hourly_rollups', 'select', 'bus_operator'),
      ('operator_reads', 'bus.tenant_rollups', 'select', 'bus_operator'),
      ('operator_reads', 'bus.canaries', 'select', 'bus_operator'),
      ('operator_uses', 'bus.quarantined_messages', 'all', 'bus_operator'),
      ('operator_uses', 'bus.ordered_keys', 'all', 'bus_operator'),
      ('operator_uses', 'bus.ordered_events', 'all', 'bus_operator')
    ) as p (policy, object, command, role)
    where not exists (
      select from pg_catalog.pg_policy x where x.polrelid = p.object::regclass and x.polname = p.policy)
  loop
    execute wanted.statement;
  end loop;

  -- Row security that somebody else has enabled, such as an event trigger does on every new table, on tables that are meant to be
  -- without: what these roles are granted there, they see.
  for wanted in
    select format('create policy %I on %s for all to %I using (true) with check (true)', w.role || '_uses', c.oid::regclass, w.role) as statement
    from (values ('bus_worker'), ('bus_operator')) as w (role)
    cross join pg_catalog.pg_class c
    where c.relnamespace in ('bus'::regnamespace, boss) and c.relkind in ('r', 'p') and c.relrowsecurity
      and has_table_privilege(w.role, c.oid, 'select')
      and not exists (select from pg_catalog.pg_policy x where x.polrelid = c.oid and w.role::regrole = any (x.polroles))
  loop
    execute wanted.statement;
  end loop;
end
$body$;
