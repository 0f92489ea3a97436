/**
 * A process that does everything the bus can, once: `node step-process.ts URL FOLDER [POINT NTH]`. It waits for a line on
 * standard input, migrates, starts, publishes in every way, releases blocked keys, redrives dead letters. With a POINT it is killed there, the
 * NTH time; with POINT `none` it stops in the middle of its work and prints how often it came by each; without one it
 * goes on until SIGTERM. Handlers write what they do to a file that outlives the process.
 */
import { once } from 'node:events'
import { openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import { faultPoints, withFaultHook, type FaultPoint } from '../../src/foundation/fault-points.ts'
import { archiveToFolder, createBus, NonRetryableError, type NewEvent } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'
import { writeEffect } from './effects.ts'
import { memorySource, messageWith } from './memory-source.ts'
import { fillMonth, makeMonth, monthAgo } from './retention.ts'
import { takeTurn } from './turns.ts'

const [, , url = '', folder = '', point, nth = '1'] = process.argv
const runs = openSync(join(folder, `${process.pid}.runs`), 'a')
const turns = openSync(join(folder, `${process.pid}.order`), 'a')
const counts: Record<string, number> = {}

function onFaultPoint(reached: FaultPoint): void {
  counts[reached] = (counts[reached] ?? 0) + 1
  if (reached !== point || counts[reached] !== Number(nth)) return
  writeSync(openSync(join(folder, 'killed'), 'a'), `${reached}\n`)
  process.kill(process.pid, 'SIGKILL')
}

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
const bus = withFaultHook(onFaultPoint, () =>
  createBus({
    ...{ database: url, events: paymentEvents, source: 'payment-service', logger: silent },
    retention: { logDays: 60, archive: archiveToFolder(join(folder, 'archive')) },
  }),
)
const pool = new pg.Pool({ connectionString: url, max: 4 })
pool.on('error', () => {})
const db = drizzle(pool)
const retry = { maxAttempts: 30, delaySeconds: 0, backoff: false }
let slowCount = 0

/** How often an event is to fail: twice, so that it has failed alone, whatever it shared its first attempt with. */
const failuresOf = (payload: unknown): number => (String(payload).includes('fails') ? 2 : 0)

bus.subscribe({
  name: 'plain',
  events: ['note'],
  retry,
  onDeadLetter: () => {},
  handler: async ({ payload }, { attempt, publish }) => {
    writeSync(runs, `${String(payload)}\n`)
    if (String(payload).includes('.slow')) {
      slowCount += 1
      await pause(100)
    }
    if (String(payload).includes('.passes-on'))
      await publish({ type: 'payment.refunded', tenantId: 'a', payload: { paymentId: 'p' } })
    if (String(payload).includes('.dies') && attempt === 1) throw new NonRetryableError('dies at first')
    if (attempt <= failuresOf(payload)) throw new Error('the first attempts fail')
  },
})
bus.subscribe({
  name: 'once',
  events: ['note'],
  mode: 'exactly-once',
  retry,
  handler: async (event, { tx, attempt }) => {
    await writeEffect(tx, event)
    if (attempt <= failuresOf(event.payload)) throw new Error('the first attempts fail')
  },
})
bus.subscribe({
  name: 'ordered',
  events: ['payment.paid'],
  ordered: true,
  retry,
  handler: async ({ orderingKey = '', payload: { paymentId, amountCents } }, { attempt }) => {
    const write = (what: string): void => {
      writeSync(turns, `${process.hrtime.bigint()} ${what} ${orderingKey} ${amountCents}\n`)
    }
    write('begins')
    await pause(1)
    const fails = attempt === 1 && paymentId !== 'good'
    write(fails ? 'fails' : 'succeeds')
    if (fails && paymentId === 'blocks') throw new NonRetryableError('blocks its key')
    if (fails) throw new Error('the first attempt fails')
  },
})

bus.subscribe({
  name: 'both',
  events: ['payment.paid'],
  ordered: true,
  mode: 'exactly-once',
  retry,
  handler: async ({ orderingKey = '', payload: { paymentId, amountCents } }, { tx, attempt }) => {
    await takeTurn(tx, orderingKey, amountCents)
    if (attempt > 1 || paymentId === 'good') return
    if (paymentId === 'blocks') throw new NonRetryableError('blocks its key')
    throw new Error('the first attempt fails')
  },
})

bus.subscribe({ name: 'late', events: ['payment.refunded'], startFrom: 'beginning', handler: () => {} })

type Note = NewEvent<typeof paymentEvents>
const note = (payload: string, rest: object = {}): Note => ({ type: 'note', tenantId: 'a', payload, ...rest })
const turn = (orderingKey: string, number: number, paymentId = 'good'): Note => ({
  type: 'payment.paid',
  tenantId: 'a',
  orderingKey,
  payload: { paymentId, amountCents: number },
})

let transactionCount = 0
/** Publishes with business state that names the events; what is rolled back is not said. */
async function publish(events: readonly Note[], isRolledBack = false): Promise<void> {
  transactionCount += 1
  const work = db.transaction(async (tx) => {
    for (const { payload, orderingKey } of events) {
      const what =
        typeof payload === 'string' ? payload : String((payload as { amountCents: number }).amountCents)
      await tx.execute(sql`insert into commits values (${orderingKey ?? null}, ${what})`)
    }
    await bus.publishMany(tx, events)
    if (isRolledBack) throw new Error('rolled back')
  })
  await work.catch((error: unknown) => {
    if (!isRolledBack) throw error
  })
}

/** What a process comes by before it stops, and has not yet. */
function notReached(): readonly FaultPoint[] {
  return faultPoints.filter(
    (name) => counts[name] === undefined && name !== 'settle.requeued' && !/^(?:migrate|stop)\./.test(name),
  )
}

/** Resolves when the condition holds, or when waiting for it makes no sense any more. */
async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 10_000
  while (!condition() && performance.now() < deadline) await pause(10)
}

/** Publishes an event that one subscription cannot take at once: somebody holds the row of its queue. */
async function publishHeld(): Promise<void> {
  const holder = await pool.connect()
  await holder.query('begin')
  await holder.query(`select from pgboss.queue where name = 'bus.plain' for update`)
  await publish([note(name('held'))])
  let isHeld = false
  const look = async (): Promise<void> => {
    const { rows } = await pool.query('select from bus.outbox where subscription_id is not null limit 1')
    isHeld = rows.length > 0
  }
  for (let n = 0; n < 500 && !isHeld; n += 1) await pause(20).then(look)
  await holder.query('rollback')
  holder.release()
}

/** Redrives what has died, unless somebody does. */
async function redriveLetters(): Promise<void> {
  const letters = await bus.deadLetters.list({ subscription: 'plain', limit: 1 })
  if (letters.length === 0 || (await bus.operations.list({ state: 'running', limit: 1 })).length > 0) return
  await bus.deadLetters.redrive({ subscription: 'plain' }, { by: 'the test', probe: 1 })
}

let releasing = true
async function releaseKeys(): Promise<void> {
  while (releasing) {
    for (const { subscription, tenantId, orderingKey } of await bus.blockedKeys.list())
      await bus.blockedKeys.release({ subscription, tenantId, orderingKey })
    await redriveLetters()
    await pause(50)
  }
}

/** Renames and removes a subscription of a process that is gone. It gets no events. */
async function changeSubscriptions(): Promise<void> {
  const [old, renamed] = [`gone-${process.pid}`, `renamed-${process.pid}`]
  await pool.query(
    `insert into bus.subscriptions (name, service, patterns, options)
     select $1, 'gone-service', '{gone.*}', options from bus.subscriptions where name = 'plain'`,
    [old],
  )
  await bus.subscriptions.rename(old, renamed, { by: 'steps' })
  const { id } = await bus.subscriptions.remove(renamed, { by: 'steps' })
  for (let n = 0; n < 500 && (await bus.operations.get(id)).state === 'running'; n += 1) await pause(20)
}

const received = memorySource()
let isMapMended = false
bus.receive({
  ...{ name: 'received', from: received },
  map({ id = '', body }) {
    if (body.length === 0 && !isMapMended) throw new Error('a message without a body')
    // Of a type that nobody handles here.
    return { type: 'payment.refunded', tenantId: 'a', payload: { paymentId: id } }
  },
})

/**
 * Receives a message and one that is poison, which is tried again. Their system delivers the same ones to every process, as it does
 * with what was not acknowledged.
 */
async function receiveMessages(): Promise<void> {
  received.add(messageWith('good', 'good'), messageWith('poison', ''))
  await until(() => received.acknowledgedCount === 2)
  isMapMended = true
  const [theirs, change] = [{ receiver: 'received' }, { by: 'steps' }]
  for (
    let n = 0;
    n < 500 && (await bus.quarantine.list({ ...theirs, state: 'stored' })).length === 0;
    n += 1
  ) {
    if ((await bus.quarantine.list(theirs)).length > 0) await bus.quarantine.retry(theirs, change)
    await pause(20)
  }
}

/** Archives and drops a month of the past, after events from before it have been copied in. */
async function retain(): Promise<void> {
  const month = monthAgo(4)
  const client = await pool.connect()
  const rows = async (text: string, values: readonly unknown[] = []): Promise<Record<string, unknown>[]> =>
    (await client.query<Record<string, unknown>>(text, [...values])).rows
  const [there] = await rows(`select to_regclass('bus.events_${month.name}') is not null as there`)
  if (there?.['there'] !== true) {
    await makeMonth({ rows }, month)
    await fillMonth({ rows }, month, 20)
  }
  await rows(`set session_replication_role = replica;
    insert into bus.events (id, tenant_id, type, source, payload) values
      ((left(bus.uuid_v7_floor('${month.from.toISOString()}'::timestamptz - interval '9 days')::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid,
        'a', 'payment.refunded', 'sql', '{}');
    reset session_replication_role`)
  client.release()
  let isDone = false
  const prune = async (): Promise<void> => {
    // The one that was killed may still hold the lock, and an operation that is under way the month.
    const report = await bus.prune({ by: 'test' }).catch(() => undefined)
    isDone = report?.ranges.every(({ outcome }) => outcome === 'dropped') === true
    if (!isDone) await pause(200)
  }
  for (let n = 0; n < 60 && !isDone; n += 1) await prune()
}

console.log('loaded')
await once(process.stdin, 'data')
const { rows: left } = await pool.query('select from commits limit 1')
const findsJobsOfTheDead = left.length > 0
await bus.migrate()
await bus.start()
console.log('started')
const released = releaseKeys()
const retained = retain()
const name = (what: string): string => `${process.pid}.${transactionCount}.${what}`
const key = (letter: string): string => `${process.pid}-${letter}`

// One at a time, then many; with an idle moment in between, in which the relay falls asleep.
await publish([note(name('one'))])
await pause(100)
await publish([note(name('fails alone'))])
await pause(100)
await publish([note(name('one'), { availableAt: new Date(Date.now() + 300) })])
await publish([note(name('rolled back'))], true)
await bus.tryPublish(note(name('tried')))
await pause(300)
await publish(Array.from({ length: 60 }, (_, n) => note(name(`${n}${n % 15 === 0 ? '.fails' : ''}`))))
await publish([note(name('passes-on'))])
await publish([note(name('1.dies')), note(name('2.dies')), note(name('3.dies'))])
// What it selects comes again to a subscription that does not look at it.
await bus.replay({ type: 'payment.refunded', subscriptions: ['late'], by: 'a test' })
await publishHeld()
await publish([
  ...['a', 'b', 'c'].flatMap((letter) =>
    [0, 1, 2, 3].map((n) => turn(key(letter), n, n === 1 ? 'fails' : 'good')),
  ),
])
await publish([turn(key('d'), 0), turn(key('d'), 1, 'blocks'), turn(key('d'), 2)])
await publish([turn(key('e'), 0, 'blocks'), turn(key('e'), 1)])
await publish(
  Array.from({ length: 40 }, (_, n) => note(name(`rolled back ${n}`))),
  true,
)
await changeSubscriptions()
await receiveMessages()
await retained
await pause(600)
if (point === undefined) {
  // Before anybody is told that it may be stopped: a process that does not listen yet is ended by the signal.
  const told = once(process, 'SIGTERM')
  console.log('published')
  await told
  // What comes next is not to end it either.
  process.on('SIGTERM', () => {})
  console.log('stopping')
  releasing = false
  await released
  await bus.stop()
  console.log('stopped')
  process.exit(0)
}
if (findsJobsOfTheDead) await until(() => notReached().length === 0)
// More than are done before it stops, whatever else the machine has to do.
await publish(Array.from({ length: 100 }, (_, n) => note(name(`${n}.slow`))))
await until(() => slowCount > 0)
releasing = false
await released
await bus.stop({ graceMs: 0 })
console.log(JSON.stringify(counts))
process.exit(0)
