import { expect, test } from 'vitest'
import type { BusHealth } from '../../src/index.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { connect, findingsOf, startBus, waitFor } from '../support/health.ts'
import { startOwnServer } from '../support/own-server.ts'

test('maintenance that hangs makes the process not live, and says which loop it is', async () => {
  const database = await createTestDatabase()
  const bus = await startBus(database, { health: { loopLimitSeconds: 2 } })
  const client = await connect(database, 'migration')
  // The heartbeat of the process waits for it.
  await client.query('begin; lock table bus.instances in access exclusive mode')
  let health: BusHealth | undefined
  await until('it is not live', async () => !(health = await bus.health()).live, 40_000)
  expect(health).toMatchObject({ live: false, ready: true, ok: true })
  expect(bus.live).toBe(false)
  const hanging = health?.findings.find(({ code }) => code === 'loop-hangs')
  expect(hanging).toMatchObject({ severity: 'error', data: { loops: [{ loop: 'maintenance' }] } })
  // What reads that table is left out, and the rest is checked.
  expect(health?.findings.find(({ code }) => code === 'check-failed')?.data).toMatchObject({
    failures: [{ section: 'registry' }],
  })
  await client.query('rollback')
  await until('it is live again', async () => (await bus.health()).live)
  expect(bus.live).toBe(true)
  await until('nothing is left', async () => (await findingsOf(bus)).length === 0)
})

test('a database that is away is one finding, and the process stays live', async () => {
  const server = await startOwnServer()
  const bus = testBus(server.url, { health: { loopLimitSeconds: 2 } })
  bus.subscribe({ name: 'steady', events: ['note'], handler: () => {} })
  await bus.start()
  await server.kill()
  await until('it is down', async () => (await bus.health()).database === 'down')
  const down = await bus.health()
  expect(down).toMatchObject({ live: true, ready: false })
  expect(down.findings.map(({ code }) => code)).toContain('database-down')
  // Longer than a loop may be late: its retries are progress.
  const since = performance.now()
  await until('time passes', async () => {
    expect((await bus.health()).live).toBe(true)
    return performance.now() - since > 3000
  })
  await server.restart()
  await until('it is ready', async () => (await bus.health()).ready)
})

test('a relay that fails makes the process not ready', async () => {
  const database = await createTestDatabase()
  const bus = await startBus(database)
  await database.rows('alter table bus.outbox rename to outbox_away')
  await database.rows('notify bus_outbox')
  const failing = await waitFor(bus, 'relay-failing')
  expect(failing.severity).toBe('error')
  expect(await bus.health()).toMatchObject({ ready: false, live: true, relay: 'failing' })
  await database.rows('alter table bus.outbox_away rename to outbox')
  await until('it recovers', async () => (await bus.health()).ready)
})
