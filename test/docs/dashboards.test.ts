import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { expectLayout, type PlacedPanel } from '../support/grafana.ts'
import { publish } from '../support/ledger.ts'
import { createLogin } from '../support/roles.ts'

const fileOf = (name: string): string => fileURLToPath(new URL(`../../docs/${name}`, import.meta.url))
const page = await readFile(fileOf('guide/dashboards.md'), 'utf8')

interface Panel extends PlacedPanel {
  readonly type: string
  readonly targets?: readonly { readonly rawSql: string; readonly format: string }[]
  readonly fieldConfig?: { readonly overrides: readonly { readonly matcher: { readonly options: string } }[] }
}

const dashboard = JSON.parse(await readFile(fileOf('grafana-dashboard.json'), 'utf8')) as {
  readonly panels: readonly Panel[]
  readonly templating: {
    readonly list: readonly { readonly name: string; readonly type: string; readonly query: string }[]
  }
}

/** Events that are delivered, dead, blocked, retried, scheduled and running. */
async function fill(): Promise<TestDatabase> {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const note = { type: 'note', tenantId: 'acme', payload: 1 } as const
  const failing = (message: string) => () => {
    throw new Error(message)
  }
  bus.subscribe({ name: 'open-case', events: ['note'], handler: () => {} })
  bus.subscribe({ name: 'dead', events: ['note'], retry: { maxAttempts: 1 }, handler: failing('gone') })
  bus.subscribe({
    name: 'retried',
    events: ['note'],
    retry: { delaySeconds: 600 },
    handler: failing('no answer'),
  })
  bus.subscribe({
    name: 'in-order',
    events: ['note'],
    ordered: true,
    retry: { maxAttempts: 1 },
    handler: failing('stuck'),
  })
  bus.subscribe({
    ...{ name: 'slow', events: ['payment.refunded'] },
    handler: async (_event, { signal }) =>
      new Promise((resolve) => signal.addEventListener('abort', resolve)),
  })
  await bus.start()
  await publish(
    database,
    bus,
    { ...note, eventId: 'pay_42', orderingKey: 'k' },
    { ...note, tenantId: 'rival' },
    { ...note, availableIn: { seconds: 3600 } },
  )
  await until(
    'they have failed',
    async () => (await database.count('select count(*) from bus.failing')) === 6,
  )
  // Written by a stop.
  await bus.stop()
  const again = testBus(database.url)
  again.subscribe({
    ...{ name: 'slow', events: ['payment.refunded'] },
    handler: async (_event, { signal }) =>
      new Promise((resolve) => signal.addEventListener('abort', resolve)),
  })
  await again.start()
  await again.tryPublish({ type: 'payment.refunded', tenantId: 'acme', payload: { paymentId: 'p' } })
  await until('one runs', async () => (await again.queries.active()).length === 1)
  return database
}

/** As Grafana's PostgreSQL data source replaces its macros and variables, for the last hour and minutes. */
function withoutMacros(text: string): string {
  const now = Date.now()
  const between = `'${new Date(now - 3_600_000).toISOString()}' AND '${new Date(now).toISOString()}'`
  return text
    .replaceAll(/\$__timeFilter\((\w+)\)/g, `$1 BETWEEN ${between}`)
    .replaceAll(/\$__timeGroup\((\w+), \$__interval\)/g, 'floor(extract(epoch from $1)/60)*60')
    .replaceAll('$__interval', '1m')
    .replaceAll('${subscription:sqlstring}', `'dead','in-order','open-case','retried','slow'`)
    .replaceAll('${key:sqlstring}', `'pay_42'`)
    .replaceAll('${tenant:sqlstring}', `''`)
}

/** A client that reads as dashboards do. */
async function connect(database: TestDatabase): Promise<pg.Client> {
  const { url } = await createLogin(database, ['bus_operator'])
  const client = new pg.Client(url)
  await client.connect()
  onTestFinished(async () => client.end())
  return client
}

/** What a panel lacks for its kind: the columns that Grafana makes a series or a figure of, and those that have a unit. */
function findFaults(
  { type, fieldConfig }: Panel,
  format: string,
  { rows, fields }: pg.QueryResult<Record<string, unknown>>,
): string[] {
  const columns = fields.map(({ name }) => name)
  // int4 and float8: an int8 or numeric comes as text.
  const numbers = fields.filter(({ dataTypeID }) => [23, 701].includes(dataTypeID)).map(({ name }) => name)
  const units = (fieldConfig?.overrides ?? []).map(({ matcher }) => matcher.options)
  const checks: Readonly<Record<string, boolean>> = {
    'no rows': rows.length > 0,
    'no time': format !== 'time_series' || columns[0] === 'time',
    'no value': type === 'table' || numbers.includes('value'),
    'other columns': type === 'table' || columns.every((name) => ['time', 'metric', 'value'].includes(name)),
    'a unit of a column that is not there': units.every((name) => columns.includes(name)),
  }
  return Object.entries(checks)
    .filter(([, isRight]) => !isRight)
    .map(([fault]) => fault)
}

test('each query of the Grafana dashboard runs, and has the columns that its panel needs', async () => {
  const client = await connect(await fill())
  const seen: string[] = []
  for (const panel of dashboard.panels) {
    for (const { rawSql, format } of panel.targets ?? []) {
      const sql = withoutMacros(rawSql)
      expect(sql).not.toContain('$')
      seen.push(sql)
      const result = await client.query<Record<string, unknown>>(sql).catch((error: unknown) => {
        throw new Error(`The panel "${panel.title}" fails`, { cause: error })
      })
      expect([panel.title, findFaults(panel, format, result)]).toEqual([panel.title, []])
    }
  }
  const { rows: views } = await client.query<{ name: string }>(
    `select viewname as name from pg_views where schemaname = 'bus' and viewname like 'v\\_%'`,
  )
  const isUsed = (name: string): boolean =>
    seen.some((sql) => sql.includes(`bus.${name}`) || sql.includes(`bus.${name.replace('v_', 'read_')}(`))
  expect(views.filter(({ name }) => !isUsed(name))).toEqual([])
  expect(views).toHaveLength(15)
  const [variable] = dashboard.templating.list.filter(({ type }) => type === 'query')
  expect((await client.query(variable?.query ?? '')).rowCount).toBe(5)
})

test('the panels of the Grafana dashboard have ids of their own, and do not overlap', () => {
  expectLayout(dashboard.panels)
  // No database of anybody's is in it.
  const named = dashboard.templating.list.map(({ name }) => name)
  expect(named).toEqual(['datasource', 'subscription', 'tenant', 'key'])
})

test('dashboards.md names each view with exactly its columns', async () => {
  const { rows } = await createTestDatabase()
  const real = await rows(
    `select 'bus.' || c.relname as name, array_agg(a.attname::text order by a.attnum) as columns
     from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
     where c.relnamespace = 'bus'::regnamespace and c.relkind = 'v' and c.relname like 'v\\_%' group by 1 order by 1`,
  )
  const documented = [...page.matchAll(/^\| `(bus\.v_\w+)` \|[^|]*\|([^|]*)\|$/gm)].map(
    ([, name, columns = '']) => ({
      name,
      columns: [...columns.matchAll(/`(\w+)`/g)].map(([, column]) => column),
    }),
  )
  expect(documented.toSorted((a, b) => String(a.name).localeCompare(String(b.name)))).toEqual(real)
  expect(real).toHaveLength(15)
})

test('each statement of dashboards.md runs', async () => {
  const database = await fill()
  const client = await connect(database)
  const blocks = [...page.matchAll(/```sql\n([\s\S]*?)```/g)].map(([, sql = '']) => sql)
  const statements = blocks
    .flatMap((block) => block.split(/;\n/))
    .filter((statement) => statement.trim() !== '')
  expect(statements.length).toBeGreaterThan(10)
  for (const statement of statements) {
    if (statement.includes('create role')) {
      await database.rows(`begin; ${statement}; rollback`)
      continue
    }
    const { rowCount } = await client.query(statement).catch((error: unknown) => {
      throw new Error(`This fails:\n${statement}`, { cause: error })
    })
    expect([statement, (rowCount ?? 0) > 0]).toEqual([statement, true])
  }
})

test('the statement that people run by hand on pg-boss has the states that dashboards.md explains', async () => {
  const database = await fill()
  const found = await database.rows(
    `select name, state, count(*)::int as jobs, sum(bus.job_event_count(data))::int as events from pgboss.job group by 1, 2`,
  )
  const counted = new Map(
    found.map(({ name, state, events }) => [`${String(name)} ${String(state)}`, Number(events)]),
  )
  expect(counted.get('bus.slow active')).toBe(1)
  expect(counted.get('bus.dead failed')).toBe(2)
  expect(counted.get('bus.dead.dead created')).toBe(2)
  expect((counted.get('bus.retried created') ?? 0) + (counted.get('bus.retried retry') ?? 0)).toBe(2)
})

test('the command line of pg-boss finds its schema as it was, beside the views', async () => {
  const { url } = await createTestDatabase()
  const cli = fileURLToPath(new URL('../../node_modules/.bin/pg-boss', import.meta.url))
  const { stdout } = await promisify(execFile)(cli, ['doctor', '--connection-string', url])
  expect(stdout).toContain('No drift detected')
})
