import { expect, test } from 'vitest'
import { createTestDatabase } from '../support/database.ts'

const roles = ['bus_operator', 'bus_publisher', 'bus_tenant', 'bus_worker', 'public'] as const

/** What each role may do with each table, view and sequence of the two schemas: whoever adds one decides here. */
const expectedTables: Readonly<Record<string, Partial<Record<(typeof roles)[number], string>>>> = {
  'bus.attempts': { bus_operator: 'select', bus_worker: 'insert select' },
  // Through the log and the ledger alone.
  'bus.attempts_default': {},
  'bus.attempts_YYYY_MM': {},
  'bus.audit': { bus_operator: 'insert select update', bus_worker: 'delete insert select update' },
  'bus.cancellations': { bus_operator: 'select', bus_tenant: 'select' },
  'bus.catalogue': { bus_operator: 'select', bus_worker: 'insert select update' },
  'bus.declarations': { bus_operator: 'select', bus_worker: 'insert select update' },
  'bus.declarations_id_seq': {},
  'bus.deliveries': { bus_operator: 'select', bus_tenant: 'select', bus_worker: 'insert select' },
  'bus.erasures': { bus_operator: 'insert select update' },
  'bus.event_keys': { bus_operator: 'select' },
  'bus.events': {
    bus_operator: 'select',
    bus_publisher: 'insert',
    bus_tenant: 'select',
    bus_worker: 'insert select',
  },
  'bus.events_default': {},
  'bus.events_YYYY_MM': {},
  'bus.failing': { bus_operator: 'delete select update', bus_worker: 'delete insert select update' },
  'bus.migrations': { bus_operator: 'select', bus_worker: 'select' },
  'bus.migrations_id_seq': {},
  'bus.instances': { bus_operator: 'select', bus_worker: 'delete insert select update' },
  'bus.operations': { bus_operator: 'insert select update', bus_worker: 'delete insert select update' },
  'bus.ordered_events': { bus_operator: 'delete select', bus_worker: 'delete insert select' },
  'bus.ordered_events_seq_seq': {},
  'bus.ordered_keys': { bus_operator: 'delete select update', bus_worker: 'delete insert select update' },
  'bus.outbox': { bus_operator: 'select', bus_worker: 'delete insert select update' },
  'bus.outbox_position_seq': { bus_worker: 'usage' },
  'bus.receipts': { bus_operator: 'select', bus_worker: 'delete insert select' },
  'bus.receipts_default': {},
  'bus.receipts_YYYY_MM': {},
  'bus.receipt_batches': { bus_operator: 'select', bus_worker: 'insert select' },
  'bus.receipt_batches_default': {},
  'bus.receipt_batches_YYYY_MM': {},
  'bus.rollups': { bus_operator: 'select', bus_worker: 'delete insert select update' },
  'bus.hourly_rollups': { bus_operator: 'select', bus_worker: 'delete insert select update' },
  'bus.tenant_rollups': {
    bus_operator: 'select',
    bus_tenant: 'select',
    bus_worker: 'delete insert select update',
  },
  'bus.canaries': { bus_operator: 'select', bus_worker: 'delete insert select update' },
  'bus.source_rules': { bus_operator: 'select' },
  'bus.subscription_revision': { bus_operator: 'usage', bus_worker: 'usage' },
  'bus.subscriptions': { bus_operator: 'select update', bus_worker: 'insert select update' },
  'bus.subscriptions_id_seq': {},
  'pgboss.*': { bus_operator: 'delete insert select update', bus_worker: 'delete insert select update' },
}

const worker = ['bus_worker']
const operator = ['bus_operator']
const publisher = ['bus_publisher', 'bus_worker']

/** Who may call each function of the schema `bus`. */
const expectedFunctions: Readonly<Record<string, readonly string[]>> = {
  'bus.advance_ordered_keys': [...operator, ...worker],
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
  'bus.create_partitions': [...operator, ...worker],
  'bus.current_tenant': [...roles],
  'bus.dead_letter_groups': [...operator, ...worker],
  'bus.dead_letter_page': [...operator, ...worker],
  'bus.dead_letters': [...operator, ...worker],
  'bus.default_partition_constraint': [],
  'bus.dispatch_inserted_events': [],
  'bus.enqueue_ordered': worker,
  'bus.erase_events': operator,
  'bus.event_deliveries': operator,
  'bus.fail_ordered_keys': [...operator, ...worker],
  'bus.insert_delivery': [],
  'bus.is_single_event': worker,
  'bus.is_unrestricted_publisher': [...roles],
  'bus.job_may_hold': [...roles],
  'bus.last_failure': [...operator, ...worker],
  'bus.lock_ordered_keys': worker,
  'bus.matching_events': worker,
  'bus.may_publish': [...roles],
  'bus.missing_months': [],
  'bus.months_of': [],
  'bus.name_transaction': publisher,
  'bus.new_key_id': [...roles],
  'bus.ordering_key_hash': [...operator, ...worker],
  'bus.pack_receipts': worker,
  'bus.partition_bounds': [],
  'bus.partition_state': [...operator, ...worker],
  'bus.pattern_matches': [...roles],
  'bus.publish': publisher,
  'bus.publish_in_transaction': publisher,
  'bus.read_each': [...operator, ...worker],
  'bus.reads_all_tenants': [...roles],
  'bus.receipt_span_floor': [...roles],
  'bus.received_events': worker,
  'bus.record_failures': worker,
  'bus.record_known_failures': worker,
  'bus.record_recoveries': worker,
  'bus.repair_sequences': worker,
  'bus.scrub_attempts': operator,
  'bus.scrub_failures': operator,
  'bus.source_rule_applies': [],
  'bus.store_events': publisher,
  'bus.stored_hash': [...roles],
  'bus.take_held_events': worker,
  'bus.tenant_dead_letters': ['bus_tenant'],
  'bus.tenant_deliveries': ['bus_tenant'],
  'bus.tenant_delivery_stats': ['bus_tenant'],
  'bus.timeline_for_tenant': [],
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
    'cancel',
    'claim_event_keys',
    'confirm_stored',
    'create_partitions',
    'dispatch_inserted_events',
    'erase_events',
    'is_unrestricted_publisher',
    'may_publish',
    'partition_state',
    'remove_canary',
    'repair_sequences',
    'scrub_attempts',
    'tenant_dead_letters',
    'tenant_deliveries',
    'tenant_delivery_stats',
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
