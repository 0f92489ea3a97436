// @module-tag slow
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, onTestFinished, test } from 'vitest'
import { recordFigure } from '../support/figures.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const run = promisify(execFile)

const typeCount = 1000
const subscriptionCount = 200
const publishCount = 200
const maxInstantiations = 1_500_000

const name = (n: number): string => `domain${n % 25}.entity${n % 100}.happened${n}`

/** What the n-th subscription is for: mostly one type, some a pattern of several, a few everything. */
function patternOf(n: number): string {
  if (n % 50 === 7) return '**'
  if (n % 10 === 8) return `domain${n % 25}.*.happened${n}`
  return n % 10 === 9 ? `domain${n % 25}.**` : name(n * 5)
}

function program(): string {
  const each = (count: number, line: (n: number) => string): string =>
    Array.from({ length: count }, (_, n) => line(n)).join('\n')
  return `
import { z } from 'zod'
import { createBus, defineEvents, defineSubscription, type DrizzleTransaction } from '../../../src/index.ts'

export const events = defineEvents({
${each(typeCount, (n) => `  '${name(n)}': { schema: z.object({ id: z.string(), n${n}: z.number() }) },`)}
})
declare const tx: DrizzleTransaction
const bus = createBus({ database: 'postgres://localhost', events, source: 'shop' })
${each(subscriptionCount / 2, (n) => `bus.subscribe({ name: 's${n}', events: ['${patternOf(n)}'], handler: (event) => event.payload.id })`)}
${each(subscriptionCount / 2, (i) => {
  const n = i + subscriptionCount / 2
  return `bus.subscribe(defineSubscription(events, { name: 's${n}', events: ['${patternOf(n)}'], handler: (event) => event.payload.id }))`
})}
${each(publishCount, (i) => {
  const n = i * 5 + 1
  return `void bus.publish(tx, { type: '${name(n)}', tenantId: 'acme', payload: { id: 'x', n${n}: 1 } })`
})}
// @ts-expect-error -- the payload of another type
void bus.publish(tx, { type: '${name(1)}', tenantId: 'acme', payload: { id: 'x', n2: 1 } })
// @ts-expect-error -- no such type
bus.subscribe({ name: 'x', events: ['${name(typeCount)}'], handler: () => {} })
`
}

test(`a program of ${typeCount} event types, ${subscriptionCount} subscriptions and ${publishCount} publishes compiles`, async () => {
  // Inside the project, so that its dependencies are found.
  await mkdir(`${root}/node_modules/.cache`, { recursive: true })
  const folder = await mkdtemp(`${root}/node_modules/.cache/scale-`)
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  await writeFile(`${folder}/program.ts`, program())
  const config = {
    extends: `${root}/tsconfig.json`,
    files: ['./program.ts'],
    include: [],
    compilerOptions: { skipLibCheck: true },
  }
  await writeFile(`${folder}/tsconfig.json`, JSON.stringify(config))
  const { stdout } = await run(
    process.execPath,
    [`${root}/node_modules/typescript/bin/tsc`, '--noEmit', '-p', folder, '--extendedDiagnostics'],
    { maxBuffer: 16 * 1024 * 1024 },
  ).catch((error: { stdout?: string }) => ({ stdout: error.stdout ?? 'error TS: tsc did not run' }))
  expect(stdout).not.toMatch(/error TS/)
  const instantiations = Number(/Instantiations:\s+(\d+)/.exec(stdout)?.[1])
  recordFigure('type instantiations of 1,000 types, 200 subscriptions, 200 publishes', `${instantiations}`)
  expect(instantiations).toBeGreaterThan(1000)
  expect(instantiations).toBeLessThan(maxInstantiations)
})
