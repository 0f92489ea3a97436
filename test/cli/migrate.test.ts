import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { expect, test } from 'vitest'
import { commandLine } from '../../src/cli/output/command-line.ts'
import { testBus } from '../support/bus.ts'
import { createFolder, runCli, type CliResult } from '../support/cli.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { migrateTo, shippedMigrationCount } from '../support/migrations.ts'
import { jsonLines } from '../support/operated.ts'
import { checkedInSchema, describeSchema } from '../support/schema-snapshot.ts'

const project = fileURLToPath(new URL('../../', import.meta.url))

/** A configuration that exports a bus with two subscriptions. */
const exportsBus = `import { createBus, defineSubscription } from ${JSON.stringify(`${project}src/index.ts`)}
import { paymentEvents } from ${JSON.stringify(`${project}test/support/catalogue.ts`)}
export const bus = createBus({ database: 'postgres://nobody@127.0.0.1:1/none', events: paymentEvents, source: 'payment-service' })
bus.subscribe({ name: 'ledger', events: ['payment.paid'], handler: () => {} })
bus.subscribe(defineSubscription(paymentEvents, { name: 'mail', events: ['payment.*'], handler: () => {} }))
`

/** As psql does: on one connection, statement after statement. */
async function runScript(url: string, script: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(script)
  } finally {
    await client.end()
  }
}

const queues = `select name from pgboss.queue where name like 'bus.%' order by name`

test('migrate --dry-run says what is pending, changes nothing, and nothing is pending afterwards', async () => {
  const { url, rows } = await createTestDatabase({ empty: true })
  const folder = await createFolder({ 'bossbus.config.ts': exportsBus })
  const run = async (...args: readonly string[]): Promise<CliResult> =>
    runCli(folder, ['migrate', '--database', url, ...args], {}, { columns: 120 })
  const dry = await run('--dry-run')
  expect(dry.code).toBe(0)
  expect(dry.out).toMatch(/^The schema bus has 0 migrations, and would get:\n {2}0000_/)
  expect(dry.out).toMatch(
    /^pg-boss would be installed in the schema pgboss, in version \d+ of its schema\.$/m,
  )
  expect(dry.out).toMatch(/^Queues would be created for ledger, mail\.$/m)
  const script = await run('--sql')
  const unscripted = 'the queues of ledger, mail'
  expect(script.out.trimEnd().split('\n').at(-1)).toBe(
    `-- Not in this script: ${unscripted}. Run \`bossbus migrate\` after it, which creates them.`,
  )
  expect(script.err).toBe(
    `The script does not create ${unscripted}: run ${commandLine('migrate', ['--database', url])} after it.`,
  )
  expect(await rows(`select nspname from pg_namespace where nspname in ('bus', 'pgboss')`)).toEqual([])

  expect(await run()).toMatchObject({ code: 0, out: 'The database is up to date.' })
  // As bus.migrate() of that bus would: a role that may not create queues can start now.
  expect((await rows(queues)).map(({ name }) => name)).toEqual([
    ...['bus.ledger', 'bus.ledger.dead', 'bus.mail', 'bus.mail.dead'],
  ])
  const [plan] = jsonLines(await run('--dry-run', '--json'))
  expect(plan).toMatchObject({
    ...{ bus: { migrations: [] }, queues: [], roles: { missing: [] }, boss: { schema: 'pgboss' } },
  })
  expect((await run('--dry-run')).out).toMatch(
    /^The schema bus is up to date: it has \d+ migrations\.\npg-boss in the schema pgboss is up to date/,
  )
})

test.each(['pgboss', 'Jobs'])(
  'the script of migrate --sql makes of an empty database what migrate does, with pg-boss in %s',
  async (bossSchema) => {
    const { url, rows } = await createTestDatabase({ empty: true })
    const folder = await createFolder({
      'bossbus.config.mjs': `export default { bossSchema: '${bossSchema}' }`,
    })
    const env = { DATABASE_URL: url }
    const script = await runCli(folder, ['migrate', '--sql'], env)
    expect(script).toMatchObject({ code: 0, err: '' })
    await runScript(url, script.out)
    const migrated = await createTestDatabase({ empty: true })
    expect(await runCli(folder, ['migrate'], { DATABASE_URL: migrated.url })).toMatchObject({ code: 0 })
    expect(await describeSchema(rows)).toBe(await describeSchema(migrated.rows))
    // It finds everything done, and so does a bus, which delivers.
    expect(jsonLines(await runCli(folder, ['migrate', '--dry-run', '--json'], env))).toMatchObject([
      { bus: { migrations: [] }, roles: { missing: [] } },
    ])
    expect(await runCli(folder, ['migrate'], env)).toMatchObject({ code: 0 })
    const handled: unknown[] = []
    const bus = testBus(url, { bossSchema })
    bus.subscribe({ name: 'quick', events: ['note'], handler: ({ payload }) => void handled.push(payload) })
    await bus.start()
    await bus.tryPublish({ type: 'note', tenantId: 'acme', payload: 1 })
    await until('it is delivered', () => handled.length === 1)
    expect((await bus.tenant('acme').events.find()).length).toBe(1)
  },
)

test.each([5, shippedMigrationCount() - 1])(
  'the script of migrate --sql brings a database with %i migrations up to date',
  async (appliedCount) => {
    const { url, rows } = await createTestDatabase({ empty: true })
    await migrateTo(url, appliedCount)
    const folder = await createFolder()
    const [plan] = jsonLines(await runCli(folder, ['migrate', '--sql', '--json'], { DATABASE_URL: url }))
    const name: unknown = expect.stringMatching(/^00\d\d_/)
    const migrations = Array.from({ length: shippedMigrationCount() - appliedCount }, () => name)
    expect(plan).toMatchObject({ bus: { appliedCount, migrations } })
    await runScript(url, String(plan?.['sql']))
    expect(await describeSchema(rows)).toBe(await checkedInSchema())
    expect(await runCli(folder, ['migrate'], { DATABASE_URL: url })).toMatchObject({ code: 0 })
  },
)
