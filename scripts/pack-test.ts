/**
 * Packs the library as npm would publish it, installs the tarball in an empty folder, and uses it there: every entry
 * point is imported, the types resolve under the strictest settings, and the migrations are in the package.
 *
 *   npm run test:pack
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

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
import { createBus, defineEvents, BusError, type StoredEvent } from 'bossbus'
import { bus as busPlugin } from 'bossbus/fastify'
import { events as eventsTable, subscriptions } from 'bossbus/schema'
import { z } from 'zod'

const events = defineEvents({ 'payment.paid': { schema: z.object({ paymentId: z.string() }) } })
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
console.log('the packed library works')
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
      'typescript@7',
      '@types/node@22',
    ],
    folder,
  )
  writeFileSync(join(folder, 'usage.ts'), usage)
  writeFileSync(join(folder, 'bossbus.config.ts'), config)
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        module: 'nodenext',
        target: 'es2023',
        strict: true,
        skipLibCheck: true,
        noEmit: true,
        types: ['node'],
      },
      include: ['usage.ts', 'bossbus.config.ts'],
    }),
  )
  run(process.execPath, [join(folder, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', folder], folder)
  const shipped = readdirSync(join(folder, 'node_modules', 'bossbus', 'drizzle')).filter((name) =>
    name.endsWith('.sql'),
  )
  if (shipped.length === 0) throw new Error('the migrations are not in the package')
  console.log(run(process.execPath, [join(folder, 'usage.ts')], folder).trim())
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
} finally {
  rmSync(folder, { recursive: true, force: true })
}
