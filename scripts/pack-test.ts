/**
 * Packs the library as npm would publish it, installs the tarball in an empty folder, and uses it there: every entry
 * point is imported, the types resolve under the strictest settings, the migrations are in the package, and a subscription
 * is crashed at every step, in processes of its own, on a PostgreSQL.
 *
 *   npm run test:pack
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startPostgres } from '../src/testing/postgres.ts'

const project = fileURLToPath(new URL('..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'bossbus-pack-'))

function run(command: string, args: readonly string[], cwd: string): string {
  return execFileSync(command, [...args], { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
}

const config = `
import { defineEvents, type BossbusConfig } from 'bossbus'
import { z } from 'zod'

const events = defineEvents({ 'payment.paid': { schema: z.object({ paymentId: z.string() }) } })
export default { events, source: 'pack-test' } satisfies BossbusConfig
`

const usage = `
import { createBus, BusError, type StoredEvent } from 'bossbus'
import { bus as busPlugin } from 'bossbus/fastify'
import { events as eventsTable, subscriptions } from 'bossbus/schema'
import { crashAtEveryStep, createTestBus } from 'bossbus/testing'
import { events } from './subscriber.ts'

const bus = createBus({ database: 'postgres://nobody@127.0.0.1:1/nowhere', events, source: 'pack-test' })
bus.subscribe({
  name: 'open-case',
  events: ['payment.paid'],
  handler: (event) => {
    const id: string = event.payload.paymentId
    const stored: StoredEvent<'payment.paid'> = event
    void [id, stored]
  },
})
// @ts-expect-error -- the catalogue has no such event
void (() => bus.tryPublish({ type: 'payment.piad', tenantId: 'a', payload: { paymentId: 'p' } }))
const refused: unknown = await bus.start().then(() => 'started', (error: unknown) => error)
if (!(refused instanceof BusError) || refused.code !== 'BUS_DATABASE_UNAVAILABLE') throw new Error('unexpected: ' + String(refused))
await bus.stop()
if (typeof busPlugin !== 'function') throw new Error('no plugin')
if (eventsTable.id.name !== 'id' || subscriptions.name.name !== 'name') throw new Error('no tables')

const database = process.env['PACK_TEST_URL'] ?? ''
await using tested = await createTestBus({ database, events, source: 'pack-test', retryDelays: 'skipped' })
tested.subscribe({ name: 'open-case', events: ['payment.paid'], handler: () => {} })
await tested.start()
await tested.tryPublish({ type: 'payment.paid', tenantId: 'a', payload: { paymentId: 'p' } })
await tested.drain()
const { payload } = await tested.waitFor({ type: 'payment.paid' }, 'delivered')
if (JSON.stringify(payload) !== '{"paymentId":"p"}') throw new Error('another event')
const { crashes } = await crashAtEveryStep(
  new URL('./subscriber.ts', import.meta.url),
  { type: 'payment.paid', tenantId: 'a', payload: { paymentId: 'p' } },
  {
    database,
    events,
    prepare: ({ query }) => query('create table entries (payment_id text)'),
    effects: async ({ query }) => (await query('select from entries')).length,
  },
)
console.log('the packed library works; a subscription of it bore ' + crashes.length + ' crashes')
`

const subscriber = `
import { defineEvents, type HandlerTransaction } from 'bossbus'
import { sql } from 'drizzle-orm'
import { z } from 'zod'

export const events = defineEvents({ 'payment.paid': { schema: z.object({ paymentId: z.string() }) } })
export const subscription = {
  name: 'ledger',
  events: ['payment.paid'],
  mode: 'exactly-once',
  handler: async ({ payload }: { payload: { paymentId: string } }, { tx }: { tx: HandlerTransaction }) => {
    await tx.execute(sql\`insert into entries values (\${payload.paymentId})\`)
  },
}
`

try {
  const [tarball] = JSON.parse(run('npm', ['pack', '--json', '--pack-destination', folder], project)) as {
    filename: string
  }[]
  writeFileSync(
    join(folder, 'package.json'),
    JSON.stringify({ name: 'uses-bossbus', private: true, type: 'module' }),
  )
  run(
    'npm',
    [
      'install',
      '--no-audit',
      '--no-fund',
      `./${tarball?.filename ?? ''}`,
      'fastify@5',
      'zod@4',
      'drizzle-orm@0.45',
      'typescript@7',
      '@types/node@22',
    ],
    folder,
  )
  writeFileSync(join(folder, 'usage.ts'), usage)
  writeFileSync(join(folder, 'bossbus.config.ts'), config)
  writeFileSync(join(folder, 'subscriber.ts'), subscriber)
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        module: 'nodenext',
        target: 'es2023',
        strict: true,
        skipLibCheck: true,
        noEmit: true,
        allowImportingTsExtensions: true,
        lib: ['es2023', 'esnext.disposable'],
        types: ['node'],
      },
      include: ['usage.ts', 'subscriber.ts', 'bossbus.config.ts'],
    }),
  )
  run(process.execPath, [join(folder, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', folder], folder)
  const shipped = readdirSync(join(folder, 'node_modules', 'bossbus', 'drizzle')).filter((name) =>
    name.endsWith('.sql'),
  )
  if (shipped.length === 0) throw new Error('the migrations are not in the package')
  // The command as npx runs it, its configuration in TypeScript.
  run('npm', ['exec', '--no', '--', 'bossbus', 'catalog', 'export', '--out', 'catalogue.json'], folder)
  const checked = run(
    'npm',
    ['exec', '--no', '--', 'bossbus', 'catalog', 'check', '--against', 'catalogue.json'],
    folder,
  )
  if (!checked.includes('Nothing breaks.')) throw new Error(`unexpected: ${checked}`)
  console.log(
    `the packed command works, version ${run('npm', ['exec', '--no', '--', 'bossbus', '--version'], folder).trim()}`,
  )
  const server = await startPostgres({ settings: ['max_connections=100', 'fsync=off'] })
  try {
    process.env['PACK_TEST_URL'] = server.url
    console.log(run(process.execPath, [join(folder, 'usage.ts')], folder).trim())
  } finally {
    await server.stop()
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
