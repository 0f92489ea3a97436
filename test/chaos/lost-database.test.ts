import { setTimeout as pause } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { expect, test } from 'vitest'
import { testBus, type PaymentBus } from '../support/bus.ts'
import { until } from '../support/database.ts'
import { createEffects, writeEffect } from '../support/effects.ts'
import { recordFigure } from '../support/figures.ts'
import { isFullForm } from '../support/form.ts'
import { startOwnServer, type OwnServer } from '../support/own-server.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { openTransact, type Transact } from '../support/transact.ts'
import { roomFor } from '../support/slowness.ts'
import { randomOfTest } from '../support/random.ts'

const random = randomOfTest()

const note = (payload: unknown) => ({ type: 'note', tenantId: 'a', payload }) as const

/** Longest that health and tryPublish may take to answer, with room for a busy machine. */
const boundMs = 8000

/** How long the database is frozen, or cut off. In any case long enough for health and tryPublish to say so. */
const awayMs = isFullForm ? 30_000 : 0

interface Service {
  readonly bus: PaymentBus
  readonly transact: Transact
}

/** A bus with both kinds of subscription, and a service that publishes by the same way. */
async function startService(
  server: OwnServer,
  url: string,
  database: string | (() => string) = url,
): Promise<Service> {
  await createEffects(server as never)
  await server.rows('create table orders (n int)')
  const bus = testBus(database)
  bus.subscribe({ name: 'plain', events: ['note'], handler: () => {} })
  bus.subscribe({
    name: 'once',
    events: ['note'],
    mode: 'exactly-once',
    handler: async (event, { tx }) => writeEffect(tx, event),
  })
  await bus.start()
  const transact = openTransact(url, 4)
  await until('it has settled', async () => (await bus.health()).relay === 'sleeping')
  return { bus, transact }
}

/** Publishes with business state until told to stop; errors are what the fault makes of them. */
function publishAllAlong({ bus, transact }: Service): { stop: () => Promise<void> } {
  let publishing = true
  const writers = [0, 1, 2].map(async () => {
    for (let n = 0; publishing; n += 1) {
      await transact(async (tx) => {
        await tx.execute(sql`insert into orders values (${n})`)
        await bus.publish(tx, note(n))
      }).catch(() => {})
      await pause(20)
    }
  })
  return {
    async stop() {
      publishing = false
      await Promise.all(writers)
    },
  }
}

/** Everything that was committed is delivered to both subscriptions, its effect once, and nothing else. */
async function expectAllDelivered(server: OwnServer): Promise<number> {
  const state = async (): Promise<Record<string, unknown>> =>
    (
      await server.rows(`select (select count(*)::int from bus.events) as events, (select count(*)::int from bus.outbox) as waiting,
        (select count(*)::int from bus.deliveries) as receipts, (select count(*)::int from effects) as effects,
        (select count(distinct event_id)::int from effects) as distinct_effects`)
    )[0] ?? {}
  await until('everything is delivered', async () => {
    const { events, receipts } = await state()
    return Number(receipts) === Number(events) * 2
  })
  const { events, ...rest } = await state()
  const count = Number(events)
  expect(rest).toEqual({ waiting: 0, receipts: count * 2, effects: count, distinct_effects: count })
  return count
}

/** Resolves when an event published from now on is delivered to both subscriptions, to the milliseconds that took. */
async function untilDelivering(server: OwnServer): Promise<number> {
  const startedAt = performance.now()
  let id: unknown
  await until('an event can be published', async () => {
    const [row] = await server
      .rows(
        `insert into bus.events (tenant_id, type, source, payload) values ('a', 'note', 'sql', '1') returning id`,
      )
      .catch(() => [])
    id = row?.['id']
    return row !== undefined
  })
  await until(
    'it is delivered to both',
    async () => (await server.count('select count(*) from bus.deliveries where event_id = $1', [id])) === 2,
  )
  return Math.round(performance.now() - startedAt)
}

/** While the database is away: health says so, tryPublish stays quiet, and both answer in time. */
async function expectQuietFailure({ bus }: Service, forMs = 0): Promise<void> {
  const startedAt = performance.now()
  const [health, published] = await Promise.all([bus.health(), bus.tryPublish(note('try'))])
  expect(health).toMatchObject({ ok: false, database: 'down' })
  expect(published).toBeUndefined()
  expect(performance.now() - startedAt).toBeLessThan(roomFor(boundMs))
  await pause(forMs)
}

const recoveryMs = 5000

test('the bus survives PostgreSQL killed and started again', async () => {
  const server = await startOwnServer()
  const service = await startService(server, server.url)
  const publishing = publishAllAlong(service)
  const times: number[] = []
  for (let kills = 0; kills < (isFullForm ? 5 : 1); kills += 1) {
    const before = await server.count('select count(*) from bus.deliveries')
    await until(
      'more is delivered',
      async () => (await server.count('select count(*) from bus.deliveries')) > before + 20,
    )
    const errors: unknown[] = []
    await service
      .transact(async (tx) => {
        await tx.execute(sql`insert into orders values (-1)`)
        await server.kill()
        await service.bus.publish(tx, note('too late')).catch((error: unknown) => {
          errors.push(error)
          throw error
        })
      })
      .catch(() => {})
    expect(errors).toMatchObject([{ code: 'BUS_DATABASE_UNAVAILABLE', retryable: true }])
    await expectQuietFailure(service)
    await server.restart()
    times.push(await untilDelivering(server))
    expect(await service.bus.health()).toMatchObject({ ok: true, database: 'up' })
  }
  expect(Math.max(...times)).toBeLessThan(roomFor(recoveryMs))
  await publishing.stop()
  const count = await expectAllDelivered(server)
  expect(await server.count('select count(*) from orders where n < 0')).toBe(0)
  const figure = `${count} events; delivering again ${times.join(', ')} ms after the server accepted connections`
  console.log(figure)
  recordFigure(
    'PostgreSQL killed and started again: health says so, tryPublish is quiet, publish fails clearly',
    figure,
  )
})

test('the bus survives a pause of the server', { tags: ['slow'] }, async () => {
  const server = await startOwnServer()
  const service = await startService(server, server.url)
  const publishing = publishAllAlong(service)
  await until(
    'something is delivered',
    async () => (await server.count('select count(*) from bus.deliveries')) > 20,
  )
  await server.freeze()
  await expectQuietFailure(service, awayMs)
  server.thaw()
  const tookMs = await untilDelivering(server)
  expect(tookMs).toBeLessThan(roomFor(recoveryMs))
  expect(await service.bus.health()).toMatchObject({ ok: true, database: 'up' })
  await publishing.stop()
  const count = await expectAllDelivered(server)
  const figure = `${count} events; delivering again ${tookMs} ms after the pause`
  console.log(figure)
  recordFigure(`PostgreSQL's processes stopped for ${awayMs / 1000} s and more`, figure)
})

test('the bus survives connections that are half open', { tags: ['slow'] }, async () => {
  const server = await startOwnServer()
  const proxy = await startTcpProxy(server.url)
  const service = await startService(server, proxy.url)
  // The publisher's own connections stay whole.
  const publishing = publishAllAlong({ ...service, transact: openTransact(server.url, 4) })
  await until(
    'something is delivered',
    async () => (await server.count('select count(*) from bus.deliveries')) > 20,
  )
  proxy.refuseService(true)
  proxy.freeze()
  await expectQuietFailure(service, awayMs)
  proxy.refuseService(false)
  const tookMs = await untilDelivering(server)
  // They have to be found first.
  expect(tookMs).toBeLessThan(roomFor(recoveryMs * 2))
  await until('health is good', async () => (await service.bus.health()).ok)
  await until('it listens again', async () => (await service.bus.health()).listening)
  await publishing.stop()
  const count = await expectAllDelivered(server)
  // The sessions nobody is at the other end of have lost their locks, so that somebody leads again.
  await until('the bus sleeps again', async () => (await service.bus.health()).relay === 'sleeping')
  const figure = `${count} events; delivering again ${tookMs} ms after new connections went through`
  console.log(figure)
  recordFigure(`connections half open for ${awayMs / 1000} s and more`, figure)
})

test('the bus survives its backends being terminated, over and over', { tags: ['slow'] }, async () => {
  const server = await startOwnServer()
  const service = await startService(server, server.url)
  const publishing = publishAllAlong(service)
  let terminated = 0
  const startedAt = performance.now()
  while (performance.now() - startedAt < (isFullForm ? 20_000 : 2000) || terminated <= 10) {
    await pause(roomFor(20 + random() * 80))
    terminated += await server.count(`select count(pg_terminate_backend(pid)) from (
      select pid from pg_stat_activity where datname = current_database() and application_name like 'bossbus%'
      order by random() limit 1) victims`)
  }
  const tookMs = await untilDelivering(server)
  expect(terminated).toBeGreaterThan(10)
  expect(tookMs).toBeLessThan(roomFor(recoveryMs))
  await publishing.stop()
  const count = await expectAllDelivered(server)
  await until('it listens again', async () => (await service.bus.health()).listening)
  expect(await service.bus.health()).toMatchObject({ ok: true, database: 'up' })
  const figure = `${count} events; ${terminated} backends terminated, delivering ${tookMs} ms after the last one`
  console.log(figure)
  recordFigure('backends of the bus terminated', figure)
})

// The short form of it is in test/database/database-option.test.ts.
test.runIf(isFullForm)('the bus follows its database to another address', { tags: ['slow'] }, async () => {
  const server = await startOwnServer()
  const [first, second] = await Promise.all([startTcpProxy(server.url), startTcpProxy(server.url)])
  let current = first
  const service = await startService(server, server.url, () => current.url)
  const publishing = publishAllAlong(service)
  await until(
    'something is delivered',
    async () => (await server.count('select count(*) from bus.deliveries')) > 20,
  )
  first.refuseService(true)
  first.freeze()
  await expectQuietFailure(service)
  current = second
  const tookMs = await untilDelivering(server)
  expect(tookMs).toBeLessThan(roomFor(recoveryMs * 2))
  await until('health is good', async () => (await service.bus.health()).ok)
  await publishing.stop()
  const count = await expectAllDelivered(server)
  const figure = `${count} events; delivering again ${tookMs} ms after the function gave another address`
  console.log(figure)
  recordFigure('failover: the function `database` gives another port', figure)
})
