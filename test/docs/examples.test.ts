import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, onTestFinished, test } from 'vitest'

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
        found.push({ file, line: text.slice(0, index).split('\n').length, code })
    }
  }
  return found
}

/** What examples use and do not say: a service around them. */
const surroundings = `
import { AsyncLocalStorage } from 'node:async_hooks'
import { randomUUID } from 'node:crypto'
import assert from 'node:assert/strict'
import { pgTable, text } from 'drizzle-orm/pg-core'
import type { NodePgDatabase } from 'drizzle-orm/node-postgres'
import fastify from 'fastify'
import { z } from 'zod'
import * as bossbus from '../../../src/index.ts'
import * as testing from '../../../src/testing/index.ts'
export const ourEvents = bossbus.defineEvents({
  'payment.paid': { schema: z.object({ paymentId: z.string(), amountCents: z.number().int() }) },
  'order.placed': { schema: z.object({ orderId: z.string() }) },
})
export const ourBus: bossbus.Bus<typeof ourEvents> = bossbus.createBus({ database: 'postgres://localhost', events: ourEvents, source: 'a' })
export interface Payment { id: string; tenantId: string }
export interface TestRunner { (name: string, work: () => Promise<void>): void }
export { AsyncLocalStorage, randomUUID, assert, pgTable, text, fastify, z, bossbus, testing }
export type { NodePgDatabase }
`

/** Names that an example may use without having said what they are. */
const given: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    [
      'createBus',
      'defineEvents',
      'defineSubscription',
      'mergeEvents',
      'eventTypes',
      'NonRetryableError',
      'RetryAfterError',
      'limits',
      'toCloudEvent',
      'fromCloudEvent',
      'toCloudEventHeaders',
      'fromCloudEventHeaders',
      'stopOnSignals',
    ].map((name) => [
      name,
      `const ${name} = (around.bossbus as typeof around.bossbus & { ${name}: any }).${name}`,
    ]),
  ),
  ...Object.fromEntries(
    ['createTestBus', 'createFakePublisher', 'runHandler', 'crashAtEveryStep'].map((name) => [
      name,
      `const ${name} = around.testing.${name}`,
    ]),
  ),
  z: 'const z = around.z',
  assert: 'const assert: typeof around.assert = around.assert',
  randomUUID: 'const randomUUID = around.randomUUID',
  fastify: 'const fastify = around.fastify',
  events: 'const events = around.ourEvents',
  paymentEvents:
    "const paymentEvents = around.bossbus.defineEvents({ 'payment.paid': around.ourEvents['payment.paid'] })",
  orderEvents:
    "const orderEvents = around.bossbus.defineEvents({ 'order.placed': around.ourEvents['order.placed'] })",
  bus: 'const bus = around.ourBus',
  db: 'declare const db: around.NodePgDatabase',
  tx: 'declare const tx: around.bossbus.DrizzleTransaction',
  BusTransaction: 'type BusTransaction = around.bossbus.BusTransaction',
  Payment: 'type Payment = around.Payment',
  payments:
    "const payments = around.pgTable('payments', { id: around.text().primaryKey(), tenantId: around.text().notNull() })",
  databaseUrl: "const databaseUrl = 'postgres://localhost'",
  url: "const url = 'https://example.org'",
  tenantId: "const tenantId = 'acme'",
  payload: "const payload = { paymentId: '42', amountCents: 4200 }",
  openCase:
    "const openCase = around.bossbus.defineSubscription(around.ourEvents, { name: 'open-case', events: ['payment.paid'], handler: () => {} })",
  openCaseFor: 'declare const openCaseFor: (tenantId: string, paymentId: string) => Promise<void>',
}

function programOf({ code, file }: Example): string {
  const declared = (name: string): boolean =>
    new RegExp(`(?:const|function|type|interface|import[^'\\n]*\\b)[ {,]*${name}\\b`).test(code) ||
    new RegExp(`import[^'\\n]*\\b${name}\\b[^'\\n]*from`).test(code)
  const used = (name: string): boolean => new RegExp(`(?<![.'\\w])${name}\\b(?!['?]?:)`).test(code)
  const fixed = code
    .replaceAll("'bossbus/", "'../../../src/")
    .replaceAll("src/fastify'", "src/fastify/index.ts'")
    .replaceAll("src/testing'", "src/testing/index.ts'")
    .replaceAll("src/schema'", "src/schema.ts'")
    .replaceAll("'bossbus'", "'../../../src/index.ts'")
    // Said once for the whole program.
    .replaceAll(/declare module '[^]*?\n\}\n/g, '')
  const before = Object.entries(given)
    .filter(([name]) => used(name) && !declared(name))
    .map(([, line]) => line)
  const isHandler = fixed.startsWith('handler:')
  return [
    `// ${file}`,
    `import * as around from './around.ts'`,
    ...fixed.split('\n').filter((line) => line.startsWith('import ')),
    ...before,
    isHandler
      ? `export const subscription = around.bossbus.defineSubscription(around.ourEvents, { name: 'a', events: ['payment.paid'],\n${fixed}})`
      : fixed
          .split('\n')
          .filter((line) => !line.startsWith('import '))
          .join('\n'),
    'export {}',
  ].join('\n')
}

test('every example of the documentation comments compiles under strict', async () => {
  const examples = await readExamples()
  expect(examples.length).toBeGreaterThan(12)
  await mkdir(`${root}/node_modules/.cache`, { recursive: true })
  const folder = await mkdtemp(`${root}/node_modules/.cache/examples-`)
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  await writeFile(`${folder}/around.ts`, surroundings)
  for (const [n, example] of examples.entries())
    await writeFile(`${folder}/example-${n}.ts`, programOf(example))
  const compilerOptions = {
    strict: true,
    noUnusedLocals: false,
    noUnusedParameters: false,
    noPropertyAccessFromIndexSignature: false,
  }
  const config = { extends: `${root}/tsconfig.json`, include: ['./*.ts'], compilerOptions }
  await writeFile(`${folder}/tsconfig.json`, JSON.stringify(config))
  const { stdout } = await run(process.execPath, [
    `${root}/node_modules/typescript/bin/tsc`,
    ...['--noEmit', '-p', folder],
  ]).catch((error: { stdout?: string }) => ({ stdout: error.stdout ?? 'error TS: tsc did not run' }))
  const told = stdout.replaceAll(/[^\s(]*example-(\d+)\.ts/g, (_match, n: string) => {
    const { file, line } = examples[Number(n)] ?? { file: '', line: 0 }
    return `src/${file}:${line}`
  })
  expect(told).toBe('')
})
