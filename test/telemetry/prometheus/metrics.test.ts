import { expect, test } from 'vitest'
import { prometheusContentType } from '../../../src/index.ts'
import { hostileService, hostileType, startBusyBus } from '../../support/busy-bus.ts'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'
import { holdClock } from '../../support/held-clock.ts'
import { publish } from '../../support/ledger.ts'
import { parsePrometheusText, valueOf, type ParsedFamily } from '../../support/prometheus-text.ts'
import { promtoolPath, runPromtool } from '../../support/promtool.ts'
import { createLogin } from '../../support/roles.ts'

const of = (subscription: string): Readonly<Record<string, string>> => ({
  messaging_destination_subscription_name: subscription,
})

/** As in the text: what is not printable is replaced. */
const shownType = hostileType.replace('\u200B', '\uFFFD')

async function read(bus: { readonly metrics: () => Promise<string> }): Promise<readonly ParsedFamily[]> {
  return parsePrometheusText(await bus.metrics())
}

/** The sections that could be read, and those that could not. */
function sectionsOf(families: readonly ParsedFamily[]): Record<string, number> {
  const { samples = [] } = families.find(({ name }) => name === 'bossbus_metrics_section_up') ?? {}
  return Object.fromEntries(samples.map(({ labels, value }) => [labels['section'] ?? '', value]))
}

const allSections = ['health', 'subscriptions', 'depth', 'lag', 'keys', 'partitions', 'quarantine', 'server']
const withAll = (value: number): Record<string, number> =>
  Object.fromEntries(allSections.map((name) => [name, value]))

test('a busy bus tells what it has counted and what its database says', async () => {
  const { bus } = await startBusyBus({ tenants: 1 })
  const text = await bus.metrics()
  const families = parsePrometheusText(text)
  const value = (name: string, labels?: Readonly<Record<string, string>>) => valueOf(families, name, labels)
  expect(sectionsOf(families)).toEqual({ ...withAll(1), tenants: 1 })

  const published = { messaging_operation_name: 'publish', messaging_system: 'bossbus' }
  const sent = (type: string) =>
    value('messaging_client_sent_messages_total', { ...published, messaging_destination_name: type })
  expect([sent('note'), sent('注文.🎉'), sent(shownType), sent('work.long')]).toEqual([4, 1, 2, 1])
  expect(value('bossbus_delivered_total', of('open-case'))).toBe(8)
  expect(value('bossbus_delivered_total', of('dead'))).toBe(0)
  expect(value('bossbus_dead_total', of('dead'))).toBe(3)
  expect(value('bossbus_dead_total', of('open-case'))).toBe(0)
  expect(value('bossbus_redriven_total', of('dead'))).toBe(1)
  expect(value('bossbus_attempts_failed_total', { ...of('retried'), error_type: 'TypeError' })).toBe(3)
  const handled = { ...of('retried'), messaging_destination_name: 'note', error_type: 'TypeError' }
  expect(value('messaging_process_duration_seconds_count', handled)).toBe(3)
  expect(value('messaging_process_duration_seconds_bucket', { ...handled, le: '10' })).toBe(3)
  const waited = { ...of('open-case'), messaging_destination_name: 'note' }
  expect(value('bossbus_commit_to_handler_duration_seconds_count', waited)).toBe(3)

  expect(value('bossbus_dead_letters', of('dead'))).toBe(2)
  expect(value('bossbus_retrying', of('retried'))).toBe(3)
  expect(value('bossbus_active', of('slow'))).toBe(1)
  expect(value('bossbus_paused_events', of('paused'))).toBe(3)
  expect(value('bossbus_ready', of('open-case'))).toBe(0)
  expect(value('bossbus_behind_keys', of('in-order'))).toBe(1)
  expect(value('bossbus_blocked_keys', of('in-order'))).toBe(2)
  expect(value('bossbus_blocked_keys', of('dead'))).toBe(0)
  expect(value('bossbus_scheduled')).toBe(1)
  expect(value('bossbus_undispatched')).toBe(0)
  expect(value('bossbus_lag_seconds', of('open-case'))).toBe(0)
  expect(value('bossbus_paused_lag_seconds', of('paused'))).toBeGreaterThan(0)
  expect([value('bossbus_paused', of('paused')), value('bossbus_paused', of('slow'))]).toEqual([1, 0])
  expect([value('bossbus_breaker_open', of('halted')), value('bossbus_breaker_open', of('slow'))]).toEqual([
    1, 0,
  ])
  expect(value('bossbus_unserved', of('slow'))).toBe(0)
  expect(value('bossbus_operations_stopped')).toBe(1)
  expect(value('bossbus_instances', { service: hostileService })).toBe(1)
  expect(value('bossbus_build_info', { service: hostileService, node: process.versions.node })).toBe(1)
  expect(value('bossbus_database_up')).toBe(1)
  expect(value('bossbus_relay_leader')).toBe(1)
  expect(value('bossbus_listen_up')).toBe(1)
  expect(value('bossbus_finding', { code: 'circuit-open' })).toBe(1)
  expect(value('bossbus_finding', { code: 'canary-failing' })).toBe(0)
  expect(value('bossbus_canary_duration_seconds')).toBeGreaterThan(0)
  for (const table of ['events', 'receipts', 'receipt_batches', 'attempts'])
    expect(value('bossbus_partition_horizon_seconds', { table })).toBeGreaterThan(30 * 86_400)
  expect(value('bossbus_default_partition_rows', { table: 'events' })).toBe(0)
  expect(value('bossbus_tenant_waiting', { tenant: 'acme' })).toBeGreaterThan(0)
  expect(value('bossbus_tenant_dead_letters', { tenant: '_OTHER' })).toBe(3)

  // The canary says nothing about a service.
  expect(text).not.toContain('bossbus.canary')
  // No payload, no key and no message is in it.
  expect(text).not.toMatch(/gone|stuck|no answer|always/)
})

test.skipIf(promtoolPath === undefined)(
  'promtool finds nothing wrong with the metrics of a busy bus, and finds what is wrong',
  async () => {
    const { bus } = await startBusyBus({ tenants: 100 })
    const text = await bus.metrics()
    expect(await runPromtool(['check', 'metrics'], text)).toEqual({ code: 0, output: '' })
    const renamed = text.replaceAll('bossbus_dead_total', 'bossbus_dead')
    expect(await runPromtool(['check', 'metrics'], renamed)).toMatchObject({ code: 3 })
    expect(await runPromtool(['check', 'metrics'], `${text}bossbus_x{a="\n"} 1\n`)).toMatchObject({ code: 1 })
  },
)

test('a bus counts from when it is first asked, or from its start with the option', async () => {
  const database = await createTestDatabase()
  const lazy = testBus(database.url)
  const eager = testBus(database.url, { source: 'shop', metrics: {} })
  const note = { type: 'note', tenantId: 'acme', payload: 1 } as const
  const sentBy = async (bus: typeof lazy) =>
    valueOf(await read(bus), 'messaging_client_sent_messages_total', { messaging_destination_name: 'note' })
  await publish(database, lazy, note)
  await publish(database, eager, note)
  expect([await sentBy(lazy), await sentBy(eager)]).toEqual([0, 1])
  await publish(database, lazy, note, note)
  await publish(database, eager, note)
  expect([await sentBy(lazy), await sentBy(eager)]).toEqual([2, 2])
})

test('the database is read once in ten seconds, whoever asks', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  await bus.start()
  await until('partitions are there', async () => (await bus.health()).findings.length === 0)
  const clock = holdClock()
  const scheduled = async () => valueOf(await read(bus), 'bossbus_scheduled')
  expect(await Promise.all([scheduled(), scheduled()])).toEqual([0, 0])
  await publish(database, bus, {
    ...{ type: 'note', tenantId: 'acme', payload: 1, availableIn: { seconds: 3600 } },
  })
  clock.advance(5000)
  const early = await read(bus)
  expect(valueOf(early, 'bossbus_scheduled')).toBe(0)
  expect(valueOf(early, 'bossbus_metrics_section_age_seconds', { section: 'depth' })).toBeGreaterThan(4)
  // A section takes at most a fiftieth of the time.
  clock.advance(120_000)
  await until('it is read anew', async () => (await scheduled()) === 1)
})

test('a process that may not read the database tells its own metrics, and which others are missing', async () => {
  const database = await createTestDatabase()
  const login = await createLogin(database, ['bus_publisher'])
  const bus = testBus(login.url)
  await bus.start({ run: 'nothing' }).catch(() => {})
  await bus.tryPublish({ type: 'note', tenantId: 'acme', payload: 1 })
  const families = await read(bus)
  expect(sectionsOf(families)).toEqual({ ...withAll(0), health: 1, server: 1 })
  expect(valueOf(families, 'bossbus_database_up')).toBe(1)
  expect(valueOf(families, 'bossbus_oldest_transaction_age_seconds')).toBeGreaterThanOrEqual(0)
  expect(families.map(({ name }) => name)).not.toContain('bossbus_ready')
  expect(valueOf(families, 'bossbus_finding', { code: 'check-failed' })).toBe(1)
})

test('a process with the rights of a worker reads everything', async () => {
  const database = await createTestDatabase()
  const login = await createLogin(database, ['bus_worker'])
  const bus = testBus(login.url, { metrics: { tenants: 1 } })
  expect(sectionsOf(await read(bus))).toEqual({ ...withAll(1), tenants: 1 })
})

test('a database that does not answer costs the gauges, not the answer', async () => {
  const bus = testBus('postgres://nobody@127.0.0.1:1/none')
  const startedAt = performance.now()
  const families = await read(bus)
  expect(performance.now() - startedAt).toBeLessThan(8000)
  expect(sectionsOf(families)).toEqual({ ...withAll(0), health: 1 })
  expect(valueOf(families, 'bossbus_database_up')).toBe(0)
  expect(valueOf(families, 'bossbus_build_info')).toBe(1)
  expect(valueOf(families, 'bossbus_dead_total')).toBeUndefined()
})

test('without gauges of the database a process reads nothing from it', async () => {
  const bus = testBus('postgres://nobody@127.0.0.1:1/none', { metrics: { database: false } })
  const families = await read(bus)
  expect(families.map(({ name }) => name)).not.toContain('bossbus_database_up')
  expect(sectionsOf(families)).toEqual({})
  expect(valueOf(families, 'bossbus_build_info')).toBe(1)
})

test('a bus can be asked before its start and after its stop', async () => {
  const { url } = await createTestDatabase()
  const bus = testBus(url)
  bus.subscribe({ name: 'open-case', events: ['note'], handler: () => {} })
  const before = await read(bus)
  expect(valueOf(before, 'bossbus_finding', { code: 'not-started' })).toBe(1)
  expect(valueOf(before, 'bossbus_listen_up')).toBeUndefined()
  expect(valueOf(before, 'bossbus_delivered_total', of('open-case'))).toBe(0)
  await bus.start()
  await until('it listens', async () => (await bus.health()).listening)
  expect(valueOf(await read(bus), 'bossbus_listen_up')).toBe(1)
  await bus.stop()
  expect(valueOf(await read(bus), 'bossbus_listen_up')).toBe(0)
})

test.each([
  [5, 'Expected `metrics` to be like { database, tenants }'],
  [{ tenant: 5 }, 'Did you mean `tenants`?'],
  [{ tenants: 101 }, 'Expected `metrics.tenants` to be an integer of at least 0 and at most 100, got 101'],
  [{ tenants: '5' }, 'Expected `metrics.tenants`'],
  [{ database: 'yes' }, 'Expected `metrics.database` to be true or false'],
])('an option like %o is refused', (metrics, message) => {
  expect(() => testBus('postgres://localhost/x', { metrics: metrics as never })).toThrow(message)
})

test('the content type is that of the format', () => {
  expect(prometheusContentType).toBe('text/plain; version=0.0.4; charset=utf-8')
})
