import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, onTestFinished, test } from 'vitest'
import * as bossbus from '../../src/index.ts'
import * as testing from '../../src/testing/index.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const run = promisify(execFile)

interface Example {
  readonly file: string
  readonly line: number
  readonly code: string
}

/** The code of every `@example` of a documentation comment. */
async function readExamples(): Promise<Example[]> {
  const names = await readdir(`${root}/src`, { recursive: true })
  const found: Example[] = []
  for (const file of names.filter((name) => name.endsWith('.ts')).toSorted()) {
    const text = await readFile(`${root}/src/${file}`, 'utf8')
    for (const { 0: comment, index } of text.matchAll(/\/\*\*[^]*?\*\//g)) {
      if (!comment.includes('@example')) continue
      const lines = comment.replaceAll(/^\s*\* ?/gm, '')
      for (const { 1: code = '' } of lines.slice(lines.indexOf('@example')).matchAll(/```ts\n([^]*?)```/g))
        found.push({ file: `src/${file}`, line: text.slice(0, index).split('\n').length, code })
    }
  }
  return found
}

/**
 * The code of the guide and of the reference that is a part of a service. Code that names its file, or the test that runs it, is a
 * whole program: guides.test.ts and processes.test.ts have those, readme.test.ts has the README.
 */
async function readPages(): Promise<Example[]> {
  const guide = (await readdir(`${root}/docs/guide`)).map((name) => `docs/guide/${name}`)
  const found: Example[] = []
  for (const file of [...guide.toSorted(), ...reference]) {
    const text = await readFile(`${root}/${file}`, 'utf8')
    for (const { 1: mark, 2: code = '', index } of text.matchAll(/(-->\n)?```ts\n([^]*?)```/g))
      if (mark === undefined && !/^\/\/ \S+\n/.test(code))
        found.push({ file, line: text.slice(0, index).split('\n').length, code })
  }
  return found
}

/** Pages of reference whose code is compiled too. */
const reference = ['catalogue', 'cloudevents', 'drivers', 'drizzle', 'errors'].map(
  (name) => `docs/${name}.md`,
)

/** What examples use and do not say: one small service around them, typed by the libraries themselves. */
const service = `
import type { Consumer, Producer } from '@platformatic/kafka'
import { drizzle } from 'drizzle-orm/node-postgres'
import { integer, pgTable, text } from 'drizzle-orm/pg-core'
import type { FastifyInstance } from 'fastify'
import type { Knex } from 'knex'
import type { Kysely } from 'kysely'
import type { RequestListener } from 'node:http'
import type { Pool, PoolClient } from 'pg'
import type { Sql } from 'postgres'
import type { DataSource } from 'typeorm'
import { z } from 'zod'
import { createBus, defineEvents, defineSubscription, mergeEvents, type Bus, type DrizzleTransaction, type PrismaTransaction, type StoredEvent } from '../../../src/index.ts'

export const paymentEvents = defineEvents({
  'payment.paid': { schema: z.object({ paymentId: z.string(), amountCents: z.number().int() }) },
})
export const orderEvents = defineEvents({ 'order.placed': { schema: z.object({ orderId: z.string() }) } })
export const ledgerEvents = defineEvents({ 'ledger.booked': { schema: z.object({ paymentId: z.string() }) } })
export const events = mergeEvents(paymentEvents, orderEvents, ledgerEvents)
export const databaseUrl = 'postgres://localhost'
export const bus = createBus({ database: databaseUrl, events, source: 'payment-service' })
export const openCase = defineSubscription(events, { name: 'open-case', events: ['payment.paid'], handler: () => {} })
export const payments = pgTable('payments', {
  id: text().primaryKey(),
  tenantId: text().notNull(),
  amountCents: integer().notNull(),
})
export declare class Payment {
  id: string
  tenantId: string
  amountCents: number
}
interface Row { id: string; amountCents: number }
export const db = drizzle(databaseUrl)
export declare const tx: DrizzleTransaction
export declare const client: PoolClient
export declare const pool: Pool
export declare const handleRequest: RequestListener
export declare const sql: Sql
export declare const knex: Knex
export declare const kysely: Kysely<{ payments: Row }>
export declare const dataSource: DataSource
export declare const producer: Producer
export declare const consumer: Consumer
export declare const prisma: {
  $transaction<T>(work: (tx: PrismaTransaction & { payment: { create(_: { data: Row }): Promise<Row> } }) => Promise<T>): Promise<T>
}
export declare const app: FastifyInstance
export const url = 'https://example.org'
export const tenantId = 'acme'
export const paymentId = '42'
export const amountCents = 4200
export const payload = { paymentId, amountCents }
export const entries = pgTable('entries', { paymentId: text().notNull(), cents: integer().notNull() })
export declare function append(event: StoredEvent): Promise<void>
export declare const id: string
export declare const secrets: { read(name: string): Promise<{ url: string }> }
export { events as log } from '../../../src/schema.ts'
export declare function openCaseFor(tenantId: string, paymentId: string): Promise<void>
export declare function tellCustomer(paymentId: string): Promise<void>
export declare function addToRevenue(event: StoredEvent): Promise<void>

declare module '../../../src/fastify/index.ts' {
  interface RegisteredBus { bus: Bus<typeof events> }
}
`

/** The SDK of OpenTelemetry and its instrumentations, as far as the example needs them: they are large, and not installed. */
const openTelemetry = `
declare module '@opentelemetry/sdk-node' {
  export class NodeSDK {
    constructor(options: { serviceName?: string; instrumentations?: readonly object[] })
    start(): void
  }
}
declare module '@opentelemetry/instrumentation-http' {
  export class HttpInstrumentation {}
}
declare module '@opentelemetry/instrumentation-pg' {
  export class PgInstrumentation {
    constructor(options?: { requireParentSpan?: boolean })
  }
}
declare module '@fastify/otel' {
  export class FastifyOtelInstrumentation {
    constructor(options?: { registerOnInitialization?: boolean })
  }
}
`

/** Names that an example may use without having said where they come from, by module. Any other one is an error. */
const given: Readonly<Record<string, readonly string[]>> = {
  'node:async_hooks': ['AsyncLocalStorage'],
  'node:crypto': ['randomUUID'],
  fastify: ['fastify'],
  zod: ['z'],
  '../../../src/index.ts': [
    ...Object.keys(bossbus),
    'BusTransaction',
    'EventOf',
    'HandlerContext',
    'Publisher',
  ],
  '../../../src/nestjs/index.ts': ['nestBus'],
  '../../../src/transports/adapters/kafka.ts': ['kafka'],
  '../../../src/transports/adapters/kafka-source.ts': ['kafkaSource'],
  '@nestjs/common': ['Injectable'],
  'node:http': ['createServer'],
  vitest: ['expect', 'test'],
  '../../../src/testing/index.ts': Object.keys(testing),
  './service.ts': [...service.matchAll(/^export (?:declare )?(?:const|class|function) (\w+)/gm)]
    .map(([, name = '']) => name)
    .concat('log'),
}

/** A program that fails to compile, and shows that the examples would. */
const mistakes: readonly Example[] = [
  { file: 'a type', line: 1, code: "await bus.publish(tx, { type: 'payment.piad', tenantId, payload })" },
  { file: 'a key', line: 1, code: "await bus.tryPublish({ type: 'payment.paid', tenantId, playload: {} })" },
  { file: 'a name', line: 1, code: 'await sendMail(paymentId)' },
  { file: 'a handler', line: 1, code: 'handler: async (event) => {\n  event.payload.amount\n}\n' },
  { file: 'a client', line: 1, code: 'fromPrisma(paymentId)' },
  {
    file: 'a request',
    line: 1,
    code: "app.get('/', (request) => request.bus.publish(tx, { type: 'payment.paid', tenantId, payload: {} }))",
  },
]

/** An example as a module of its own, with imports of the names that it uses and does not declare. */
function programOf({ code }: Example): string {
  // What a loop is over is no declaration.
  const declarations = code.replaceAll(' of ', ' = ')
  const declares = (name: string): boolean =>
    new RegExp(`\\b(?:const|using|function|class|type|interface) [^=('\\n]*\\b${name}\\b`).test(
      declarations,
    ) || new RegExp(`import[^'\\n]*\\b${name}\\b[^'\\n]*from`).test(code)
  const uses = (name: string): boolean => new RegExp(`(?<![.'\\w])${name}\\b(?!['?]?:)`).test(code)
  const fixed = code
    .replaceAll("'bossbus/schema'", "'../../../src/schema.ts'")
    .replaceAll(/'bossbus\/transports\/([\w-]+)'/g, "'../../../src/transports/adapters/$1.ts'")
    .replaceAll(/'bossbus\/(\w+)'/g, "'../../../src/$1/index.ts'")
    .replaceAll("'bossbus'", "'../../../src/index.ts'")
    .replaceAll("'./src/events.ts'", "'./service.ts'")
    // Said once for the whole program.
    .replaceAll(/declare module '[^]*?\n\}\n/g, '')
  const isImport = (line: string): boolean => line.startsWith('import ')
  const lines = fixed.split('\n')
  const body = lines.filter((line) => !isImport(line)).join('\n')
  return [
    ...Object.entries(given).flatMap(([module, names]) =>
      names
        .filter((name) => uses(name) && !declares(name))
        .map((name) => `import { ${isType(name) ? 'type ' : ''}${name} } from '${module}'`),
    ),
    ...lines.filter(isImport),
    fixed.startsWith('handler:')
      ? `import * as around from './service.ts'
import { defineSubscription as define } from '../../../src/index.ts'
export const subscription = define(around.paymentEvents, { name: 'a', events: ['payment.paid'],\n${body}})`
      : body,
    'export {}',
  ].join('\n')
}

function isType(name: string): boolean {
  return ['BusTransaction', 'EventOf', 'HandlerContext', 'Publisher'].includes(name)
}

/** What the compiler says of each example, by its place. */
async function compile(examples: readonly Example[]): Promise<string[]> {
  await mkdir(`${root}/node_modules/.cache`, { recursive: true })
  const folder = await mkdtemp(`${root}/node_modules/.cache/examples-`)
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  await writeFile(`${folder}/service.ts`, service)
  await writeFile(`${folder}/open-telemetry.d.ts`, openTelemetry)
  for (const [n, example] of examples.entries())
    await writeFile(`${folder}/example-${n}.ts`, programOf(example))
  // An example need not use all that it shows.
  const compilerOptions = {
    noUnusedLocals: false,
    noUnusedParameters: false,
    // As most services have it.
    noPropertyAccessFromIndexSignature: false,
  }
  const config = { extends: `${root}/tsconfig.json`, include: ['./*.ts'], compilerOptions }
  await writeFile(`${folder}/tsconfig.json`, JSON.stringify(config))
  const { stdout } = await run(process.execPath, [
    `${root}/node_modules/typescript/bin/tsc`,
    ...['--noEmit', '--pretty', 'false', '-p', folder],
  ]).catch((error: { stdout?: string }) => ({ stdout: error.stdout ?? 'error TS: tsc did not run' }))
  return stdout
    .replaceAll(/\n(?= )/g, ' ')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) =>
      line.replaceAll(/[^\s(]*example-(\d+)\.ts/g, (_match, n: string) => {
        const { file, line } = examples[Number(n)] ?? { file: '', line: 0 }
        return `${file}:${line}`
      }),
    )
}

test('every example of the documentation comments, the guide and the reference compiles under strict, with the names of one service', async () => {
  const pages = await readPages()
  const files = new Set(pages.map(({ file }) => file))
  for (const file of ['docs/guide/publishing.md', 'docs/guide/testing.md', ...reference])
    expect(files).toContain(file)
  const examples = [...(await readExamples()), ...pages]
  expect(examples.length).toBeGreaterThan(50)
  const told = await compile([...examples, ...mistakes])
  const isMistake = (line: string): boolean => mistakes.some(({ file }) => line.startsWith(`${file}:1(`))
  expect(told.filter((line) => !isMistake(line))).toEqual([])
  // The positive twin: a mistake of each kind is told.
  const silent = mistakes.filter(({ file }) => !told.some((line) => line.startsWith(`${file}:1(`)))
  expect(silent).toEqual([])
})
