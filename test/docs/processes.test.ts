import { readFile } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import { drizzle } from 'drizzle-orm/postgres-js'
import { expect, onTestFinished, test } from 'vitest'
import { createBus, type Bus, type EventCatalogue } from '../../src/index.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import * as orderProcess from './guide/order-process.ts'
import { copyHistory, registerPaused } from './guide/rebuild.ts'
import * as timeline from './guide/timeline.ts'

const guide = new URL('../../docs/guide/', import.meta.url)
const programs = new URL('guide/', import.meta.url)

function openBus<C extends EventCatalogue>({ url }: TestDatabase, events: C): Bus<C> {
  const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
  const bus = createBus({ database: url, events, source: 'orders', logger: silent })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  return bus
}

test('docs/guide/processes.md prints the programs that are run here', async () => {
  const page = await readFile(new URL('processes.md', guide), 'utf8')
  const printed = [...page.matchAll(/program is (test\/docs\/guide\/[a-z-]+\.ts) -->\n```ts\n([\s\S]*?)```/g)]
  const names = printed.map(([, path = '']) => path.split('/').at(-1) ?? '')
  expect(names).toEqual(['order-process.ts', 'timeline.ts', 'rebuild.ts'])
  for (const [index, name] of names.entries()) {
    const program = await readFile(new URL(name, programs), 'utf8')
    const asPrinted = program
      .replaceAll("from '../../../src/index.ts'", "from 'bossbus'")
      .replaceAll("from '../../../src/schema.ts'", "from 'bossbus/schema'")
    expect(printed[index]?.[2]).toBe(asPrinted)
  }
  expect(printed[0]?.[2]?.split('\n').length).toBeLessThan(65)
})

const processTable = `create table order_processes (tenant_id text, order_id text, is_paid boolean not null default false,
  is_shipped boolean not null default false, timer_id uuid, outcome text, primary key (tenant_id, order_id))`

/** What has come out of each order, by the log. */
async function outcomes({ rows }: TestDatabase): Promise<Record<string, string>> {
  const found = await rows(
    `select ordering_key, string_agg(type, ' ') as types from bus.events where type in ('order.completed', 'order.overdue') group by 1`,
  )
  return Object.fromEntries(found.map(({ ordering_key, types }) => [String(ordering_key), String(types)]))
}

type OrderBus = Bus<typeof orderProcess.events>

async function comes(
  bus: OrderBus,
  { db }: TestDatabase,
  type: 'payment.paid' | 'parcel.shipped',
  orderId: string,
): Promise<void> {
  await db.transaction(async (tx) =>
    bus.publish(tx, { type, tenantId: 'acme', orderingKey: orderId, payload: { orderId } }),
  )
}

test('an order whose payment and parcel come in time is completed, once, and its timer is cancelled', async () => {
  const database = await createTestDatabase()
  await database.rows(processTable)
  const bus = openBus(database, orderProcess.events)
  orderProcess.superviseOrders(bus)
  await bus.start()
  await comes(bus, database, 'payment.paid', '1')
  await comes(bus, database, 'parcel.shipped', '2')
  await until(
    'both timers run',
    async () =>
      (await database.count('select count(*) from order_processes where timer_id is not null')) === 2,
  )
  // The same again changes nothing.
  await comes(bus, database, 'payment.paid', '1')
  await comes(bus, database, 'parcel.shipped', '1')
  await comes(bus, database, 'payment.paid', '2')
  await until('both are completed', async () => Object.keys(await outcomes(database)).length === 2)
  await comes(bus, database, 'parcel.shipped', '2')
  await until(
    'all is delivered',
    async () =>
      (await database.count(
        `select count(*) from bus.events e where type in ('payment.paid', 'parcel.shipped')
         and not exists (select from bus.deliveries d where d.event_id = e.id)`,
      )) === 0,
  )
  expect(await outcomes(database)).toEqual({ 1: 'order.completed', 2: 'order.completed' })
  expect(
    await database.rows(
      `select c.event_id is not null as cancelled from bus.events e left join bus.cancellations c on c.event_id = e.id
       where type = 'order.time-is-up'`,
    ),
  ).toEqual([{ cancelled: true }, { cancelled: true }])
})

test('an order of which one half does not come in time is overdue, once, and what comes late changes nothing', async () => {
  const database = await createTestDatabase()
  await database.rows(processTable)
  const bus = openBus(database, orderProcess.events)
  orderProcess.superviseOrders(bus, 300)
  await bus.start()
  await comes(bus, database, 'payment.paid', '1')
  await until('it is overdue', async () => (await outcomes(database))['1'] === 'order.overdue')
  await comes(bus, database, 'parcel.shipped', '1')
  await until(
    'all is delivered',
    async () => (await database.count('select count(*) from bus.deliveries')) === 3,
  )
  expect(await outcomes(database)).toEqual({ 1: 'order.overdue' })
  expect(await database.rows('select outcome from order_processes')).toEqual([{ outcome: 'overdue' }])
})

test('where timers and what they wait for meet, each order ends in one way, over two processes', async () => {
  const database = await createTestDatabase({ max: 10 })
  await database.rows(processTable)
  const buses = [openBus(database, orderProcess.events), openBus(database, orderProcess.events)] as const
  const timeLimitMs = 400
  for (const bus of buses) {
    orderProcess.superviseOrders(bus, timeLimitMs)
    await bus.start()
  }
  const orders = Array.from({ length: 60 }, (_, n) => String(n))
  await Promise.all(
    orders.map(async (order, n) => {
      await comes(buses[0], database, 'payment.paid', order)
      // Some before the timer, some after what it does, most about when it is due.
      if (n < 50) await pause(timeLimitMs * (n / 25))
      else await until('it is overdue', async () => (await outcomes(database))[order] === 'order.overdue')
      await comes(buses[1], database, 'parcel.shipped', order)
    }),
  )
  await until('all have ended', async () => Object.keys(await outcomes(database)).length === orders.length)
  await until(
    'nothing is left',
    async () =>
      (await database.count(
        'select (select count(*) from bus.outbox) + (select count(*) from bus.ordered_events)',
      )) === 0,
  )
  const ended = await outcomes(database)
  expect(new Set(Object.values(ended))).toEqual(new Set(['order.completed', 'order.overdue']))
  const states = await database.db.select().from(orderProcess.processes)
  expect(Object.fromEntries(states.map(({ orderId, outcome }) => [orderId, `order.${outcome}`]))).toEqual(
    ended,
  )
})

test('a read model that is rebuilt while events come has each of them once, and in order', async () => {
  const database = await createTestDatabase({ max: 12 })
  await database.rows(
    'create table order_timelines (tenant_id text, order_id text, statuses text[] not null, primary key (tenant_id, order_id))',
  )
  await database.rows('create table order_timelines_copied (id uuid primary key)')
  // Without a subscription that has it yet, an event is handed over to nobody: that is history.
  const service = openBus(database, timeline.events)
  service.subscribe({ name: 'another', events: ['order.changed'], handler: () => {} })
  await service.start()
  const orderIds = Array.from({ length: 8 }, (_, n) => `order-${n}`)
  const published = new Map(orderIds.map((orderId) => [orderId, [] as string[]]))
  let isWriting = true
  let count = 0
  const change = (orderId: string, n: number) => {
    const payload = { orderId, status: String(n) }
    return { type: 'order.changed', tenantId: 'acme', orderingKey: orderId, payload } as const
  }
  const note = (orderId: string, n: number): void => {
    published.get(orderId)?.push(String(n))
    count += 1
  }
  // More than one page of history.
  const before = Array.from({ length: 150 }, (_, n) => n)
  const history = before.flatMap((n) => orderIds.map((orderId) => [orderId, n] as const))
  await database.db.transaction(async (tx) =>
    service.publishMany(
      tx,
      history.map(([orderId, n]) => change(orderId, n)),
    ),
  )
  for (const [orderId, n] of history) note(orderId, n)
  const write = async (orderId: string): Promise<void> => {
    for (let n = before.length; isWriting; n += 1) {
      // Not faster than a read model is built, also on a busy machine: what is written meanwhile has to be built too.
      await pause(30)
      const isRolledBack = n % 10 === 9
      const work = database.db.transaction(async (tx) => {
        await service.publish(tx, change(orderId, n))
        // Transactions of different lengths overlap.
        if (n % 7 === 3) await pause(n % 40)
        if (isRolledBack) throw new Error('rolled back')
      })
      await work.then(
        () => note(orderId, n),
        (error: unknown) => {
          if (!isRolledBack) throw error
        },
      )
    }
  }
  const writing = orderIds.map(write)
  const untilMore = async (more: number): Promise<void> => {
    const enough = count + more
    await until('more is published', () => count >= enough)
  }
  await untilMore(100)
  await registerPaused(database.url)
  await untilMore(100)
  await copyHistory(drizzle({ client: database.sql }))
  const copiedCount = await database.count('select count(*) from order_timelines_copied')
  await untilMore(100)
  const live = openBus(database, timeline.events)
  timeline.keepTimelines(live)
  await live.start()
  await live.subscriptions.resume(timeline.timelineSubscription.name)
  await untilMore(100)
  isWriting = false
  await Promise.all(writing)
  const found = async (): Promise<Record<string, string>> => {
    const rows = await database.db.select().from(timeline.timelines)
    return Object.fromEntries(rows.map(({ orderId, statuses }) => [orderId, statuses.join(' ')]))
  }
  await until(
    'nothing is left',
    async () =>
      (await database.count(
        `select (select count(*) from bus.outbox) + (select count(*) from bus.ordered_events)
         + (select count(*) from pgboss.job where name = 'bus.order-timelines' and state < 'completed')`,
      )) === 0,
    120_000,
  )
  expect(await found()).toEqual(
    Object.fromEntries([...published].map(([orderId, statuses]) => [orderId, statuses.join(' ')])),
  )
  // Some came from the history alone, some both ways, some only live.
  const receipts = await database.count(
    `select count(*) from bus.deliveries d join bus.subscriptions s on s.id = d.subscription_id where s.name = 'order-timelines'`,
  )
  const bothWays = copiedCount - (await database.count('select count(*) from order_timelines_copied'))
  expect(copiedCount).toBeGreaterThan(1400)
  expect(bothWays).toBeGreaterThan(0)
  expect(receipts).toBeGreaterThan(bothWays)
  expect(copiedCount - bothWays + receipts).toBe(count)
})
