import { expect, test } from 'vitest'
import { createTestDatabase } from '../support/database.ts'

const roles = ['bus_operator', 'bus_publisher', 'bus_tenant', 'bus_worker', 'public'] as const

/** What each role may do with each table, view and sequence of the two schemas: whoever adds one decides here. */
const expectedTables: Readonly<Record<string, Partial<Record<(typeof roles)[number], string>>>> = {
  'bus.attempts': { bus_operator: 'select', bus_worker: 'insert select' },
  // Through the log and the ledger alone.
  'bus.attempts_default': {},
  'bus.attempts_YYYY_MM': {},
  'bus.audit': { bus_operator: 'insert select update', bus_worker: 'insert select update' },
  'bus.cancellations': { bus_operator: 'select', bus_tenant: 'select', bus_worker: 'select' },
  'bus.catch_up_dispatched': { bus_operator: 'delete select', bus_worker: 'delete insert select' },
  'bus.catalogue': { bus_operator: 'select', bus_worker: 'insert select update' },
  'bus.dead_letter_alerts': { bus_operator: 'select', bus_worker: 'insert select update' },
  'bus.dead_letter_calls': { bus_operator: 'select', bus_worker: 'delete insert select update' },
  'bus.declarations': { bus_operator: 'delete select', bus_worker: 'delete insert select update' },
  'bus.declarations_id_seq': {},
  'bus.deliveries': { bus_operator: 'select', bus_tenant: 'select', bus_worker: 'insert select' },
  'bus.erasures': { bus_operator: 'insert select update' },
  'bus.event_keys': { bus_operator: 'select', bus_tenant: 'select' },
  'bus.event_copies': { bus_operator: 'select', bus_worker: 'select' },
  'bus.events': {
    bus_operator: 'select',
    bus_publisher: 'insert',
    bus_tenant: 'select',
    bus_worker: 'insert select',
  },
  'bus.events_default': {},
  'bus.events_YYYY_MM': {},
  'bus.failing': { bus_operator: 'delete select update', bus_worker: 'delete insert select update' },
  'bus.archives': { bus_operator: 'insert select update', bus_worker: 'insert select update' },
  'bus.archive_erasures': { bus_operator: 'insert select update', bus_worker: 'insert select update' },
  'bus.archive_files': {
    bus_operator: 'delete insert select update',
    bus_worker: 'delete insert select update',
  },
  'bus.partition_spans': { bus_operator: 'select', bus_worker: 'select' },
  'bus.retention_policies': {
    bus_operator: 'delete insert select update',
    bus_worker: 'delete insert select update',
  },
  'bus.retention_state': { bus_operator: 'select update', bus_worker: 'select update' },
  'bus.migrations': { bus_operator: 'select', bus_worker: 'select' },
  'bus.migrations_id_seq': {},
  'bus.instances': { bus_operator: 'select', bus_worker: 'delete insert select update' },
  'bus.operations': { bus_operator: 'insert select update', bus_worker: 'insert select update' },
  'bus.ordered_events': { bus_operator: 'delete select update', bus_worker: 'delete insert select update' },
  'bus.ordered_events_seq_seq': {},
  'bus.ordered_keys': { bus_operator: 'delete select update', bus_worker: 'delete insert select update' },
  'bus.outbox': { bus_operator: 'select', bus_worker: 'delete insert select update' },
  'bus.outbox_position_seq': { bus_worker: 'usage' },
  'bus.receipts': { bus_operator: 'insert select', bus_worker: 'delete insert select' },
  'bus.receipts_default': {},
  'bus.receipts_YYYY_MM': {},
  'bus.receipt_batches': { bus_operator: 'select', bus_worker: 'insert select' },
  'bus.receipt_batches_default': {},
  'bus.receipt_batches_YYYY_MM': {},
  'bus.replay_outcomes': { bus_operator: 'select', bus_worker: 'delete insert select' },
  'bus.replays': { bus_operator: 'insert select', bus_worker: 'insert select' },
  'bus.rollups': { bus_operator: 'select', bus_worker: 'delete insert select update' },
  'bus.hourly_rollups': { bus_operator: 'select', bus_worker: 'delete insert select update' },
  'bus.tenant_rollups': {
    bus_operator: 'select',
    bus_tenant: 'select',
    bus_worker: 'delete insert select update',
  },
  'bus.canaries': { bus_operator: 'select', bus_worker: 'delete insert select update' },
  'bus.quarantined_messages': { bus_operator: 'select update', bus_worker: 'insert select update' },
  'bus.source_rules': { bus_operator: 'select' },
  'bus.subscription_revision': { bus_operator: 'usage', bus_worker: 'usage' },
  'bus.removed_subscriptions': { bus_operator: 'insert select update', bus_worker: 'insert select update' },
  'bus.subscriptions': { bus_operator: 'delete select update', bus_worker: 'delete insert select update' },
  'bus.subscriptions_id_seq': {},
  'bus.v_active': { bus_operator: 'select' },
  'bus.v_blocked_keys': { bus_operator: 'select' },
  'bus.v_dead_by_error': { bus_operator: 'select' },
  'bus.v_depth': { bus_operator: 'select' },
  'bus.v_events_by_key': { bus_operator: 'select' },
  'bus.v_instances': { bus_operator: 'select' },
  'bus.v_lag': { bus_operator: 'select' },
  'bus.v_latency': { bus_operator: 'select' },
  'bus.v_recent_failures': { bus_operator: 'select' },
  'bus.v_retries': { bus_operator: 'select' },
  'bus.v_scheduled': { bus_operator: 'select' },
  'bus.v_storage': { bus_operator: 'select' },
  'bus.v_subscription_state': { bus_operator: 'select' },
  'bus.v_tenants': { bus_operator: 'select' },
  'bus.v_throughput': { bus_operator: 'select' },
  'pgboss.*': { bus_operator: 'delete insert select update', bus_worker: 'delete insert select update' },
}

const worker = ['bus_worker']
const operator = ['bus_operator']
const publisher = ['bus_publisher', 'bus_worker']

/** Who may call each function of the schema `bus`. */
const expectedFunctions: Readonly<Record<string, readonly string[]>> = {
  'bus.retention_policy': [...operator, ...worker],
  'bus.partitions_of': [...operator, ...worker],
  'bus.scheduled_until': [...operator, ...worker],
  'bus.range_holds': [...operator, ...worker],
  'bus.drop_range': [...operator, ...worker],
  'bus.prune_event_keys': [...operator, ...worker],
  'bus.prune_rows': [...operator, ...worker],
  'bus.adopt_default_partition': [...operator, ...worker],
  'bus.operation_holds': [],
  'bus.range_hash': [],
  'bus.set_partition_span': operator,
  'bus.advance_ordered_keys': [...operator, ...worker],
  'bus.add_bins': [...roles],
  'bus.attach_month': [],
  'bus.begin_ordered_keys': [...operator, ...worker],
  'bus.remove_canary': worker,
  'bus.boss_schema': [...roles],
  'bus.cancel': [...operator, ...publisher],
  'bus.cancel_in_transaction': publisher,
  'bus.check_event_id': [],
  'bus.check_source_rule': [],
  'bus.claim_event_keys': publisher,
  'bus.clear_default_partition': [],
  'bus.confirm_stored': publisher,
  'bus.copy_event': [...operator, ...worker],
  'bus.count_dead_letters': [...operator, ...worker],
  'bus.create_partitions': [...operator, ...worker],
  'bus.current_tenant': [...roles],
  'bus.dead_letter_condition': [...operator, ...worker],
  'bus.dead_letter_groups': [...operator, ...worker],
  'bus.dead_letter_rows': [...operator, ...worker],
  'bus.dead_letters': [...operator, ...worker],
  'bus.default_partition_constraint': [],
  'bus.dispatch_inserted_events': [],
  'bus.enqueue_copy': [...operator, ...worker],
  'bus.enqueue_ordered': worker,
  'bus.enqueue_replayed': worker,
  'bus.erase_events': operator,
  'bus.event_deliveries': operator,
  'bus.event_states': operator,
  'bus.event_facts': operator,
  'bus.event_jobs': operator,
  'bus.events_in_state': operator,
  'bus.events_with_state': operator,
  'bus.event_replays': operator,
  'bus.fail_ordered_keys': [...operator, ...worker],
  'bus.find_in_outbox': operator,
  'bus.find_jobs': operator,
  'bus.insert_delivery': [],
  'bus.is_background_job': [...roles],
  'bus.is_single_event': worker,
  'bus.is_unrestricted_publisher': [...roles],
  'bus.job_may_hold': [...roles],
  'bus.judge_payload': operator,
  'bus.job_event_count': [...roles],
  'bus.json_texts': [...operator, ...worker],
  'bus.last_failure': [...operator, ...worker],
  'bus.lock_ordered_keys': worker,
  'bus.matching_events': [...operator, ...worker],
  'bus.may_publish': [...roles],
  'bus.missing_months': [],
  'bus.months_of': [],
  'bus.merge_bins': [...roles],
  'bus.name_transaction': publisher,
  'bus.new_key_id': [...roles],
  'bus.ordering_key_hash': [...operator, ...worker],
  'bus.pack_receipts': worker,
  'bus.partition_bounds': [...operator, 'bus_tenant'],
  'bus.partition_state': [...operator, ...worker],
  'bus.pattern_matches': [...roles],
  'bus.percentile': [...roles],
  'bus.publish': publisher,
  'bus.publish_in_transaction': publisher,
  'bus.read_active': operator,
  'bus.read_blocked_keys': operator,
  'bus.read_dead_by_error': operator,
  'bus.read_depth': [...operator, ...worker],
  'bus.read_events_by_key': operator,
  'bus.read_held_events': [...operator, ...worker],
  'bus.read_lag': [...operator, ...worker],
  'bus.read_recent_failures': operator,
  'bus.read_retries': operator,
  'bus.read_scheduled': operator,
  'bus.read_storage': operator,
  'bus.read_tenants': [...operator, ...worker],
  'bus.read_each': [...operator, ...worker],
  'bus.reads_all_tenants': [...roles],
  'bus.receipt_span_floor': [...roles],
  'bus.received_events': [...operator, ...worker],
  'bus.record_failures': worker,
  'bus.record_known_failures': worker,
  'bus.record_recoveries': worker,
  'bus.repair_sequences': worker,
  'bus.scrub_attempts': operator,
  'bus.scrub_failures': operator,
  'bus.source_rule_applies': [],
  'bus.store_events': publisher,
  'bus.stored_hash': [...roles],
  'bus.subscription_ids': [...operator, 'bus_tenant'],
  'bus.take_held_events': worker,
  'bus.tenant_dead_letter_groups': ['bus_tenant'],
  'bus.tenant_dead_letters': ['bus_tenant'],
  'bus.tenant_deliveries': ['bus_tenant'],
  'bus.tenant_delivery_stats': ['bus_tenant'],
  'bus.tenant_event_facts': ['bus_tenant'],
  'bus.tenant_event_states': ['bus_tenant'],
  'bus.tenant_events_in_state': ['bus_tenant'],
  'bus.tenant_events_with_state': ['bus_tenant'],
  'bus.tenant_operations': ['bus_tenant'],
  'bus.timeline_for_tenant': operator,
  'bus.tenant_replays': ['bus_tenant'],
  'bus.uuid_ms': [...roles],
  'bus.uuid_v7': [...roles],
  'bus.uuid_v7_floor': [...roles],
  'bus.without_stacks': [],
}

test('each role has exactly the privileges that are written down, on every table, view and sequence', async () => {
  const { rows } = await createTestDatabase()
  const found = await rows(
    `select n.nspname || '.' || c.relname as name, r.role,
       (select string_agg(p, ' ' order by p) from unnest(case c.relkind
          when 'S' then array['usage', 'select', 'update']
          else array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger'] end) as p
        where case c.relkind when 'S' then has_sequence_privilege(r.role, c.oid, p) else
          has_table_privilege(r.role, c.oid, p) or (p in ('select', 'insert', 'update', 'references') and has_any_column_privilege(r.role, c.oid, p)) end) as privileges
     from pg_class c join pg_namespace n on n.oid = c.relnamespace cross join unnest($1::text[]) as r (role)
     where n.nspname in ('bus', 'pgboss') and c.relkind not in ('i', 'I', 't', 'c')
     order by 1, 2`,
    [roles],
  )
  const tables: Record<string, Record<string, string>> = {}
  for (const { name, role, privileges } of found) {
    const short = String(name)
      .replace(/\d{4}_\d{2}$/, 'YYYY_MM')
      .replace(/^pgboss\..*/, 'pgboss.*')
    const held = (tables[short] ??= {})
    if (typeof privileges === 'string') held[String(role)] = privileges
  }
  expect(tables).toEqual(expectedTables)
  expect(found.length).toBeGreaterThan(100)
})

test('each function of the bus can be called by exactly those that are written down', async () => {
  const { rows } = await createTestDatabase()
  const found = await rows(
    `select 'bus.' || p.proname as name,
       array(select r.role from unnest($1::text[]) as r (role) where has_function_privilege(r.role, p.oid, 'execute') order by 1) as callers
     from pg_proc p where p.pronamespace = 'bus'::regnamespace order by 1`,
    [roles],
  )
  expect(Object.fromEntries(found.map(({ name, callers }) => [name, callers]))).toEqual(
    Object.fromEntries(
      Object.entries(expectedFunctions).map(([name, callers]) => [name, callers.toSorted()]),
    ),
  )
})

test('functions that run as their owner have a fixed search_path, and temporary objects come last in it', async () => {
  const { rows } = await createTestDatabase()
  const found = await rows(
    `select p.proname as name, p.proconfig as config from pg_proc p
     where p.pronamespace = 'bus'::regnamespace and p.prosecdef order by 1`,
  )
  expect(found.map(({ name }) => name)).toEqual([
    'adopt_default_partition',
    'cancel',
    'claim_event_keys',
    'confirm_stored',
    'copy_event',
    'create_partitions',
    'dispatch_inserted_events',
    'drop_range',
    'enqueue_copy',
    'erase_events',
    'is_unrestricted_publisher',
    'may_publish',
    'partition_state',
    'prune_event_keys',
    'prune_rows',
    'range_hash',
    'range_holds',
    'read_storage',
    'remove_canary',
    'repair_sequences',
    'scheduled_until',
    'scrub_attempts',
    'set_partition_span',
    'subscription_ids',
    'tenant_dead_letter_groups',
    'tenant_dead_letters',
    'tenant_dead_letters',
    'tenant_deliveries',
    'tenant_delivery_stats',
    'tenant_event_facts',
    'tenant_event_states',
    'tenant_events_in_state',
    'tenant_events_with_state',
    'tenant_operations',
    'tenant_replays',
  ])
  for (const { config } of found) expect(config).toContain('search_path=pg_catalog, pg_temp')
})

test('nobody but the owner may create anything in the schemas', async () => {
  const { rows } = await createTestDatabase()
  expect(
    await rows(
      `select n.nspname, r.role from pg_namespace n cross join unnest($1::text[]) as r (role)
       where n.nspname in ('bus', 'pgboss') and has_schema_privilege(r.role, n.oid, 'create')`,
      [roles],
    ),
  ).toEqual([])
  expect(
    await rows(
      `select n.nspname, array(select r.role from unnest($1::text[]) as r (role) where has_schema_privilege(r.role, n.oid, 'usage') order by 1) as roles
       from pg_namespace n where n.nspname in ('bus', 'pgboss') order by 1`,
      [roles],
    ),
  ).toEqual([
    { nspname: 'bus', roles: ['bus_operator', 'bus_publisher', 'bus_tenant', 'bus_worker'] },
    { nspname: 'pgboss', roles: ['bus_operator', 'bus_worker'] },
  ])
})

test('the roles of the bus cannot log in, and have no attribute beyond that', async () => {
  const { rows } = await createTestDatabase()
  expect(
    await rows(
      `select rolname, rolcanlogin or rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls as beyond
       from pg_roles where rolname like 'bus\\_%' order by 1`,
    ),
  ).toEqual(roles.slice(0, 4).map((rolname) => ({ rolname, beyond: false })))
})
