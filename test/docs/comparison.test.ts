import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, onTestFinished, test } from 'vitest'
import { comparisonTable, libraries } from '../../scripts/api-comparison.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const run = promisify(execFile)

test('the table of docs/comparison.md is what the script counts', async () => {
  const page = await readFile(`${root}/docs/comparison.md`, 'utf8')
  expect(page).toContain(comparisonTable())
})

/** What the code of a library is written in: its client, the transaction, and what is to be done. */
const around: Readonly<Record<string, string>> = {
  bossbus: `
import { createBus, type DrizzleTransaction } from 'bossbus'
import { events } from './events.ts'
declare const tx: DrizzleTransaction
const tenantId = 'acme'
const bus = createBus({ database: 'postgres://localhost', events, source: 'payment-service' })
const { openCase } = await import('./subscription.ts')
bus.subscribe(openCase)
`,
  'pg-boss 12': `
import { PgBoss } from 'pg-boss'
import { drizzle } from 'drizzle-orm/postgres-js'
const boss = new PgBoss('postgres://localhost')
const { openCase } = await import('./subscription.ts')
await openCase(boss)
await drizzle('postgres://localhost').transaction(async (tx) => {
`,
}

test.for(Object.entries(around))('the code of %s compiles under strict', async ([name, before]) => {
  const library = libraries.find((each) => each.name === name)
  if (library === undefined) throw new Error(`Expected the comparison to have ${name}`)
  await mkdir(`${root}/node_modules/.cache`, { recursive: true })
  const folder = await mkdtemp(`${root}/node_modules/.cache/comparison-`)
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  const imports = library.publish.split('\n').filter((line) => line.startsWith('import '))
  const statements = library.publish.split('\n').filter((line) => !line.startsWith('import '))
  const files = {
    'cases.ts':
      'export async function openCaseFor(paymentId: string): Promise<void> { console.log(paymentId) }',
    'events.ts': library.event,
    'subscription.ts': library.subscription,
    'publish.ts': [
      ...imports,
      before,
      `const { paymentId, amountCents } = { paymentId: '42', amountCents: 4200 }`,
      ...statements,
      before.trimEnd().endsWith('{') ? '})' : '',
      'export {}',
    ].join('\n'),
  }
  for (const [file, code] of Object.entries(files))
    await writeFile(`${folder}/${file}`, code.replaceAll("'bossbus'", "'../../../src/index.ts'"))
  await writeFile(
    `${folder}/tsconfig.json`,
    JSON.stringify({ extends: `${root}/tsconfig.json`, include: ['./*.ts'], exclude: [] }),
  )
  const tsc = [`${root}/node_modules/typescript/bin/tsc`, '--noEmit', '--pretty', 'false', '-p', folder]
  const told = await run(process.execPath, tsc).then(
    () => '',
    (error: { stdout?: string }) => error.stdout ?? 'tsc did not run',
  )
  expect(told).toBe('')
})
