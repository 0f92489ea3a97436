/**
 * Packs the library as npm would publish it, installs the tarball in an empty folder, and uses it there. Every entry
 * point is imported and required. The types resolve under the strictest settings, with Drizzle 0.45 and with 1.x. A
 * subscription is crashed at some of its steps, in separate processes, on a PostgreSQL. Bundles of it run, as ESM and as
 * CommonJS, without any other package. A service on NestJS 11 and 12 handles an event in a decorated method, as an ES
 * module and as CommonJS. The packages, megabytes and files that a service gets with it are counted, and bounded.
 *
 * The folder of the service is installed into step by step, each check as soon as what it needs is there: an install
 * from nothing takes longer than most of the checks.
 *
 *   npm run test:pack [-- FILE]
 *
 * With a file that `scripts/pack.ts` has written, it is that which is tested.
 */
import { execFileSync, spawn } from 'node:child_process'
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { createDatabase } from '../src/testing/databases.ts'
import { startPostgres } from '../src/testing/postgres.ts'

const project = fileURLToPath(new URL('..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'bossbus-pack-'))
const tarball = join(folder, 'bossbus.tgz')

/** A service that uses the library: its packages are installed here, and nowhere above. */
const user = join(folder, 'user')

/** The compiler of this project: it takes longer to install than what it compiles. */
const tsc = join(project, 'node_modules', 'typescript', 'bin', 'tsc')

function run(command: string, args: readonly string[], cwd: string): string {
  return execFileSync(command, [...args], { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
}

interface Manifest {
  readonly version?: string
  readonly dependencies: Record<string, string>
}

function readManifest(of: string): Manifest {
  return JSON.parse(readFileSync(join(of, 'package.json'), 'utf8')) as Manifest
}

/** What one install has learned of the registry is good for the next. */
function install(cwd: string, ...packages: readonly string[]): void {
  run('npm', ['install', '--no-audit', '--no-fund', '--prefer-offline', ...packages], cwd)
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
    only: ['relay.claimed', 'exactly-once.handler-done', 'exactly-once.committed'],
  },
)
if (crashes.length < 3) throw new Error('too few crashes')
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

const joins = `
import { eq } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import { events, subscriptions } from 'bossbus/schema'

const db = drizzle('postgres://localhost')
export async function read(): Promise<{ name: string; subject: string | null; at: Date }[]> {
  return db
    .select({ name: subscriptions.name, subject: events.subject, at: events.createdAt })
    .from(events)
    .innerJoin(subscriptions, eq(events.source, subscriptions.service))
}
// @ts-expect-error -- no such column
export const nothing = events.nothing
`

/** What a package of a monorepo exports, with declarations: each inferred type has a name that can be imported. */
const exported = `
import { createBus, defineEvents, defineSubscription, eventTypes, mergeEvents } from 'bossbus'
import { createFakePublisher, createTestBus, runHandler } from 'bossbus/testing'
import { z } from 'zod'

export const paymentEvents = defineEvents({ 'payment.paid': { schema: z.object({ paymentId: z.string() }) } })
export const orderEvents = defineEvents({ 'order.placed': { schema: z.object({ orderId: z.string() }) } })
export const events = mergeEvents(paymentEvents, orderEvents)
export const types = eventTypes(events)
export const openCase = defineSubscription(paymentEvents, {
  name: 'open-case',
  events: [types['payment.paid']],
  handler: async ({ payload }, { publish }) => publish({ type: 'payment.paid', payload }),
})
export const ledger = defineSubscription(events, {
  name: 'ledger',
  events: ['**'],
  mode: 'exactly-once',
  handler: async (_event, { tx }) => tx.execute('select 1'),
})
export const bus = createBus({ database: 'postgres://localhost/none', events, source: 'pack-test' })
export const publisher = bus.with({ tenantId: 'a' })
export const acme = bus.tenant('a')
export const fake = createFakePublisher(events)
export const makeTestBus = async () => createTestBus({ events })
export const payload = { paymentId: 'p' }
export const runOpenCase = async () => runHandler(paymentEvents, openCase, { type: 'payment.paid', payload })
bus.subscribe(openCase)
for (const subscription of [openCase, ledger]) bus.subscribe(subscription)
const ofOrders = createBus({ database: 'postgres://localhost/none', events: orderEvents, source: 'pack-test' })
// @ts-expect-error -- the bus lacks its events
void (() => ofOrders.subscribe(openCase))
// @ts-expect-error -- no subscription
void (() => bus.subscribe({ name: 'no-handler' }))
`

const required = `
const { createBus } = require('bossbus')
const { bus } = require('bossbus/fastify')
const { events } = require('bossbus/schema')
const { createTestBus } = require('bossbus/testing')
for (const each of [createBus, bus, createTestBus]) if (typeof each !== 'function') throw new Error('not required')
if (events.id.name !== 'id') throw new Error('no tables')
console.log('the packed library can be required')
`

/** A service in a bundle: it creates the schema, publishes, and handles exactly once. */
const service = `
import { createBus, defineEvents } from 'bossbus'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import { z } from 'zod'

async function main(): Promise<void> {
  const events = defineEvents({ 'payment.paid': { schema: z.object({ paymentId: z.string() }) } })
  const database = process.env['PACK_TEST_URL'] ?? ''
  const bus = createBus({ database, events, source: 'pack-test', drizzle: { casing: 'snake_case' } })
  await bus.migrate()
  const handled = Promise.withResolvers<string>()
  bus.subscribe({
    name: 'ledger',
    events: ['payment.paid'],
    mode: 'exactly-once',
    handler: async ({ payload }, { tx }) => {
      await tx.execute(sql\`select 1\`)
      handled.resolve(payload.paymentId)
    },
  })
  await bus.start()
  const pool = new pg.Pool({ connectionString: database, max: 1 })
  await drizzle({ client: pool }).transaction(async (tx) =>
    bus.publish(tx, { type: 'payment.paid', tenantId: 'a', payload: { paymentId: 'p' } }),
  )
  if ((await handled.promise) !== 'p') throw new Error('another event')
  // The roles of the bus are granted what they need: else no tenant could read.
  if ((await bus.tenant('a').events.find()).length !== 1) throw new Error('no event')
  await bus.stop()
  await pool.end()
}
main().then(
  () => console.log('works'),
  (error: unknown) => {
    console.error(error)
    process.exit(1)
  },
)
`

/** A service on NestJS, as its compiler and its container see it: experimental decorators, with metadata. */
const nestService = `
import 'reflect-metadata'
import { Injectable, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { createBus, defineEvents, type Bus, type EventOf, type HandlerContext } from 'bossbus'
import { BusModule, InjectBus, nestBus } from 'bossbus/nestjs'
import { z } from 'zod'

const events = defineEvents({
  'payment.paid': { schema: z.object({ paymentId: z.string() }) },
  'payment.refunded': { schema: z.object({ reason: z.string() }) },
})
const { Subscribe } = nestBus(events)
const handled = Promise.withResolvers<string>()

@Injectable()
class Ledger {
  readonly name = 'ledger'
}

@Injectable()
class Cases {
  constructor(
    private readonly ledger: Ledger,
    @InjectBus() readonly bus: Bus<typeof events>,
  ) {}

  @Subscribe({ name: 'open-case', events: ['payment.paid'] })
  async openCase(event: EventOf<typeof events, 'payment.paid'>, ctx: HandlerContext<typeof events>): Promise<void> {
    handled.resolve(this.ledger.name + ' ' + event.payload.paymentId + ' ' + ctx.attempt)
  }
}

export class Mistaken {
  // @ts-expect-error -- takes another event than it subscribes
  @Subscribe({ name: 'refund', events: ['payment.refunded'] })
  refund(event: EventOf<typeof events, 'payment.paid'>): void {
    void event
  }
}

async function main(): Promise<void> {
  const bus = createBus({ database: process.env['PACK_TEST_URL'] ?? '', events, source: 'pack-test' })
  @Module({ imports: [BusModule.forBus(bus, { migrate: true })], providers: [Ledger, Cases] })
  class AppModule {}
  const app = await NestFactory.createApplicationContext(AppModule, { logger: ['error'] })
  await app.get(Cases).bus.tryPublish({ type: 'payment.paid', tenantId: 'a', payload: { paymentId: 'p' } })
  const said = await handled.promise
  if (said !== 'ledger p 1') throw new Error('another event: ' + said)
  await app.close()
  if (bus.state !== 'stopped') throw new Error('not stopped')
}
main().then(
  () => console.log('works'),
  (error: unknown) => {
    console.error(error)
    process.exit(1)
  },
)
`

/** Compiles the service on NestJS as users do, as an ES module and as CommonJS, and runs it. */
async function runNest(serverUrl: string, version: number): Promise<void> {
  const nest = join(user, `nest-${version}`)
  mkdirSync(nest)
  // npm warns that each of the two does not fit the other one's version of before.
  const packages = [`@nestjs/common@${version}`, `@nestjs/core@${version}`, 'reflect-metadata@0.2', 'rxjs@7']
  install(user, '--loglevel=error', ...packages)
  for (const name of ['common', 'core']) {
    const { version: installed = '' } = readManifest(join(user, 'node_modules', '@nestjs', name))
    if (!installed.startsWith(`${version}.`)) throw new Error(`unexpected: @nestjs/${name} ${installed}`)
  }
  for (const name of ['service.mts', 'service.cts']) writeFileSync(join(nest, name), nestService)
  const { noEmit, allowImportingTsExtensions, ...emitting } = compilerOptions
  void [noEmit, allowImportingTsExtensions]
  const options = { ...emitting, experimentalDecorators: true, emitDecoratorMetadata: true }
  writeFileSync(
    join(nest, 'tsconfig.json'),
    JSON.stringify({ compilerOptions: options, files: ['service.mts', 'service.cts'] }),
  )
  run(process.execPath, [tsc, '-p', 'tsconfig.json'], nest)
  for (const name of ['service.mjs', 'service.cjs']) {
    process.env['PACK_TEST_URL'] = await createDatabase(serverUrl, `nest_${version}_${name.slice(-3)}`)
    console.log(`NestJS ${version} with ${name} ${run(process.execPath, [join(nest, name)], nest).trim()}`)
  }
}

/** Packages that are type declarations alone: never loaded, and part of any service in TypeScript. */
const declarationPackages = ['@types/node', '@types/pg', 'undici-types']

const mostPackages = 25
const mostMegabytes = 30

/** Installs the library and Drizzle, nothing else, and counts what that brings beside Drizzle. */
function checkFootprint(): void {
  mkdirSync(user)
  writeFileSync(
    join(user, 'package.json'),
    JSON.stringify({ name: 'uses-bossbus', private: true, type: 'module' }),
  )
  install(user, tarball, 'drizzle-orm@0.45')
  const modules = join(user, 'node_modules')
  const paths = run('npm', ['ls', '--omit=dev', '--all', '--parseable'], user).trim().split('\n').slice(1)
  const names = paths
    .map((path) => relative(modules, path).split(sep).join('/'))
    .filter((name) => name !== 'drizzle-orm')
  if (!names.includes('bossbus') || !names.includes('pg-boss'))
    throw new Error(`unexpected: ${names.join(', ')}`)
  const loaded = names.filter((name) => !declarationPackages.includes(name))
  const byteCount = sizeOf(modules) - sizeOf(join(modules, 'drizzle-orm'))
  const megabytes = byteCount / 1e6
  console.log(
    `beside drizzle-orm: ${names.length} packages, ${loaded.length} without those of types alone, ${megabytes.toFixed(1)} MB`,
  )
  if (loaded.length > mostPackages)
    throw new Error(`Expected at most ${mostPackages} packages, got ${loaded.join(', ')}`)
  if (megabytes > mostMegabytes) throw new Error(`Expected at most ${mostMegabytes} MB, got ${megabytes}`)
  checkFiles(join(modules, 'bossbus'))
}

function sizeOf(directory: string): number {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).size, 0)
}

/** The package has the built code, the migrations and the pages that its users read; docs/guide/operating.md says why no source maps. */
function checkFiles(installed: string): void {
  const files = readdirSync(installed, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => relative(installed, join(parentPath, name)).split(sep).join('/'))
  const wanted = [
    'dist/index.js',
    'dist/index.d.ts',
    'README.md',
    'LICENSE',
    'docs/errors.md',
    'docs/guide/README.md',
    'docs/grafana-dashboard.json',
    'docs/grafana-prometheus.json',
    'docs/prometheus-rules.yml',
  ]
  const missing = wanted.filter((file) => !files.includes(file))
  const refused = files.filter((file) =>
    /^(?:src|test|scripts)\/|\.map$|^docs\/(?:adr\/|design|benchmarks)/.test(file),
  )
  if (missing.length > 0 || refused.length > 0)
    throw new Error(`Missing from the package: ${missing.join(', ')}. Not to be there: ${refused.join(', ')}`)
}

/**
 * What a new user does: `npx bossbus init` in an empty folder, the install, `npx bossbus dev` without a database; with the packed library in
 * place of the published one, until the first event is handled. The first command comes from the folder where nothing is installed but the
 * library and Drizzle, as npx would install it.
 */
async function runNewService(): Promise<void> {
  const fresh = join(folder, 'fresh')
  mkdirSync(fresh)
  let beganAt = performance.now()
  run(join(user, 'node_modules', '.bin', 'bossbus'), ['init', '--yes'], fresh)
  const initMs = performance.now() - beganAt
  const wanted = readManifest(fresh)
  wanted.dependencies['bossbus'] = `file:${tarball}`
  writeFileSync(join(fresh, 'package.json'), JSON.stringify(wanted))
  install(fresh)
  run(process.execPath, [join(fresh, 'node_modules', 'typescript', 'bin', 'tsc')], fresh)
  const { DATABASE_URL: _, ...env } = process.env
  beganAt = performance.now()
  // Not by npm, which would not pass the signal on.
  const child = spawn(join(fresh, 'node_modules', '.bin', 'bossbus'), ['dev'], {
    cwd: fresh,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  const handled = Promise.withResolvers<void>()
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      said += text
      if (/confirm order/.test(said) && /confirm-order {2}delivered/.test(said)) handled.resolve()
    })
  const ended = new Promise<void>((resolve) => void child.once('close', resolve))
  void ended.then(() => handled.reject(new Error(`bossbus dev has ended: ${said}`)))
  const timer = setTimeout(() => handled.reject(new Error(`not handled within a minute: ${said}`)), 60_000)
  try {
    await handled.promise
  } finally {
    clearTimeout(timer)
    child.kill('SIGINT')
    await ended
  }
  const seconds = (initMs + performance.now() - beganAt) / 1000
  console.log(
    `from an empty folder to a handled event and its end: ${seconds.toFixed(1)} s beside the install`,
  )
  if (seconds > 60) throw new Error('Expected at most 60 s')
}

const compilerOptions = {
  module: 'nodenext',
  target: 'es2023',
  strict: true,
  skipLibCheck: true,
  noEmit: true,
  // Not written, but an error if a declaration cannot be emitted.
  declaration: true,
  allowImportingTsExtensions: true,
  lib: ['es2023', 'es2024.promise', 'esnext.disposable'],
  types: ['node'],
}

/** Bundles the service, and runs it in a folder without packages. */
async function runBundle(serverUrl: string, format: 'esm' | 'cjs'): Promise<void> {
  const alone = join(user, `alone-${format}`)
  const outfile = join(alone, `service.${format === 'esm' ? 'mjs' : 'cjs'}`)
  const requireInEsm = `import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);`
  await build({
    entryPoints: [join(user, 'service.ts')],
    ...{ bundle: true, minify: true, platform: 'node', target: 'node22', format, outfile, logLevel: 'error' },
    ...(format === 'esm' && { banner: { js: requireInEsm } }),
  })
  // In a folder from which no package is found by walking up.
  const elsewhere = mkdtempSync(join(tmpdir(), 'bossbus-bundle-'))
  try {
    renameSync(outfile, join(elsewhere, basename(outfile)))
    process.env['PACK_TEST_URL'] = await createDatabase(serverUrl, `bundle_${format}`)
    const said = run(process.execPath, [join(elsewhere, basename(outfile))], elsewhere).trim()
    console.log(`a bundle of the packed library, as ${format}, ${said}`)
  } finally {
    rmSync(elsewhere, { recursive: true, force: true })
  }
}

try {
  const [, , given] = process.argv
  if (given === undefined) run(process.execPath, ['scripts/pack.ts', tarball], project)
  else copyFileSync(given, tarball)
  checkFootprint()
  await runNewService()
  install(user, 'fastify@5', 'zod@4', '@types/node@22')
  writeFileSync(join(user, 'usage.ts'), usage)
  writeFileSync(join(user, 'bossbus.config.ts'), config)
  writeFileSync(join(user, 'subscriber.ts'), subscriber)
  writeFileSync(join(user, 'joins.ts'), joins)
  writeFileSync(join(user, 'exported.ts'), exported)
  writeFileSync(join(user, 'required.cjs'), required)
  writeFileSync(join(user, 'service.ts'), service)
  const files = ['usage.ts', 'subscriber.ts', 'bossbus.config.ts', 'joins.ts', 'exported.ts']
  // The same with Drizzle 1.x, which takes `casing` on the tables.
  const drizzle1 = join(project, 'node_modules', 'drizzle-1')
  const paths = { 'drizzle-orm': [`${drizzle1}/index.d.ts`], 'drizzle-orm/*': [`${drizzle1}/*/index.d.ts`] }
  const configs = {
    'tsconfig.json': { compilerOptions, files: [...files, 'service.ts'] },
    'tsconfig.drizzle-1.json': { compilerOptions: { ...compilerOptions, paths }, files },
  }
  for (const [name, content] of Object.entries(configs)) {
    writeFileSync(join(user, name), JSON.stringify(content))
    run(process.execPath, [tsc, '-p', name], user)
  }
  const shipped = readdirSync(join(user, 'node_modules', 'bossbus', 'drizzle')).filter((name) =>
    name.endsWith('.sql'),
  )
  if (shipped.length === 0) throw new Error('the migrations are not in the package')
  // The command as npx runs it, with a TypeScript configuration.
  run('npm', ['exec', '--no', '--', 'bossbus', 'catalog', 'export', '--out', 'catalogue.json'], user)
  const checked = run(
    'npm',
    ['exec', '--no', '--', 'bossbus', 'catalog', 'check', '--against', 'catalogue.json'],
    user,
  )
  if (!checked.includes('Nothing breaks.')) throw new Error(`unexpected: ${checked}`)
  console.log(
    `the packed command works, version ${run('npm', ['exec', '--no', '--', 'bossbus', '--version'], user).trim()}`,
  )
  const server = await startPostgres({ settings: ['max_connections=100', 'fsync=off'] })
  try {
    console.log(run(process.execPath, [join(user, 'required.cjs')], user).trim())
    process.env['PACK_TEST_URL'] = server.url
    console.log(run(process.execPath, [join(user, 'usage.ts')], user).trim())
    for (const format of ['esm', 'cjs'] as const) await runBundle(server.url, format)
    for (const version of [11, 12]) await runNest(server.url, version)
  } finally {
    await server.stop()
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
