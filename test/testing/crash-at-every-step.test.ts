import { appendFile, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sql } from 'drizzle-orm'
import pg from 'pg'
import { expect, inject, onTestFinished, test } from 'vitest'
import { crashAtEveryStep, type CrashDatabase } from '../../src/testing/index.ts'
import { paymentEvents } from '../support/catalogue.ts'
import { isFullForm } from '../support/form.ts'
import { bookedAtLeastOnce, bookedOnce, entriesSql } from '../support/publishing-subscriber.ts'

const paid = {
  type: 'payment.paid',
  tenantId: 'acme',
  payload: { paymentId: '42', amountCents: 4200 },
} as const

const options = {
  get database() {
    return inject('serverUrl')
  },
  events: paymentEvents,
  prepare: async ({ query }: CrashDatabase) =>
    query('create table entries (cents int); create table seen (event_id uuid primary key)'),
  effects: async ({ query }: CrashDatabase) => (await query('select from entries')).length,
}

/** The steps around the handler. The exactly-once handler is crashed at all of them. */
const some = {
  ...options,
  get database() {
    return inject('serverUrl')
  },
  only: [
    'relay.claimed',
    'worker.loaded',
    'worker.handler-done',
    'settle.receipts-inserted',
    'settle.committed',
  ],
} as const

test('an exactly-once handler bears a crash at every step', async () => {
  const { crashes } = await crashAtEveryStep(
    {
      name: 'ledger',
      events: ['payment.paid'],
      mode: 'exactly-once',
      handler: async ({ payload }, { tx }) =>
        void (await tx.execute(sql`insert into entries values (${payload.amountCents})`)),
    },
    paid,
    options,
  )
  const points = crashes.map(({ point }) => point)
  expect(points).toEqual(
    expect.arrayContaining([
      'relay.claimed',
      'exactly-once.handler-done',
      'exactly-once.receipts-inserted',
      'exactly-once.committed',
    ]),
  )
  expect(new Set(crashes.map(({ effects }) => effects))).toEqual(new Set([1]))
})

/** A connection of the handler's own, as a service has it. */
function openPool(url: string): pg.Pool {
  const pool = new pg.Pool({ connectionString: url, max: 2 })
  pool.on('error', () => {})
  onTestFinished(async () => pool.end())
  return pool
}

test('an at-least-once handler that finds out by the id of the event what it has done bears it, too', async () => {
  const { crashes } = await crashAtEveryStep(
    ({ url }) => {
      const pool = openPool(url)
      return {
        name: 'ledger',
        events: ['payment.paid'],
        handler: async ({ id }) => {
          await pool.query(
            `with new as (insert into seen values ($1) on conflict do nothing returning 1)
            insert into entries select 1 from new`,
            [id],
          )
        },
      }
    },
    paid,
    some,
  )
  const points = crashes.map(({ point }) => point)
  expect(points).toEqual(
    expect.arrayContaining([
      'relay.claimed',
      'worker.handler-done',
      'settle.receipts-inserted',
      'settle.committed',
    ]),
  )
})

test('a handler that writes again what it has written is found, by the names of the steps', async () => {
  const run = crashAtEveryStep(
    ({ url }) => {
      const pool = openPool(url)
      return {
        name: 'ledger',
        events: ['payment.paid'],
        handler: async () => void (await pool.query('insert into entries values (1)')),
      }
    },
    paid,
    some,
  )
  const { message } = (await run.catch((error: unknown) => error)) as Error
  expect(message).toContain('does not survive a crash')
  expect(message).toContain('- `worker.handler-done`: the effect was doubled: 2 instead of 1')
  expect(message).toContain('- `settle.receipts-inserted`: the effect was doubled')
  expect(message).not.toContain('`relay.claimed`')
  expect(message).not.toContain('`settle.committed`')
})

test('a handler that swallows its event after a crash is found', async () => {
  const run = crashAtEveryStep(
    ({ url }) => {
      const pool = openPool(url)
      return {
        name: 'ledger',
        events: ['payment.paid'],
        // It takes a second attempt for a repetition.
        handler: async (_event, { attempt }) =>
          void (attempt === 1 && (await pool.query('insert into entries values (1)'))),
      }
    },
    paid,
    some,
  )
  await expect(run).rejects.toThrow('- `worker.loaded`: the effect was lost: 0 instead of 1')
})

test('a handler that fails without any crash, an event that is a duplicate, and effects that are not one are told apart', async () => {
  const crash = async (handler: () => void, event: object = {}): Promise<unknown> =>
    crashAtEveryStep(
      { name: 'ledger', events: ['payment.paid'], retry: { maxAttempts: 2 }, handler },
      { ...paid, ...event },
      some,
    )
  await expect(
    crash(() => {
      throw new Error('no such account')
    }),
  ).rejects.toThrow('Without any crash: it became a dead letter: no such account')
  await expect(crash(() => {})).rejects.toThrow('Without any crash: the effect was lost: 0 instead of 1')
})

test('what check throws fails the run', async () => {
  const run = crashAtEveryStep(
    {
      name: 'ledger',
      events: ['payment.paid'],
      mode: 'exactly-once',
      handler: async (_event, { tx }) => void (await tx.execute(sql`insert into entries values (1)`)),
    },
    (run) => ({ ...paid, eventId: `payment-${run}` }),
    {
      ...options,
      check: ({ point }) => {
        throw new Error(`checked after ${point}`)
      },
    },
  )
  await expect(run).rejects.toThrow('checked after relay.claimed')
})

test(
  'a module is crashed in processes of its own, with SIGKILL: memory does not help its handler',
  { tags: ['slow'] },
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'bossbus-crash-'))
    onTestFinished(async () => rm(folder, { recursive: true, force: true }))
    const module = new URL('../support/crashed-subscriber.ts', import.meta.url)
    module.searchParams.set('file', join(folder, 'effects'))
    await appendFile(join(folder, 'effects'), '')
    const run = crashAtEveryStep(module, paid, {
      ...some,
      // A process for each crash.
      only: isFullForm ? some.only : ['relay.claimed', 'worker.handler-done'],
      effects: async () => (await readFile(join(folder, 'effects'), 'utf8')).length,
    })
    const { message } = (await run.catch((error: unknown) => error)) as Error
    expect(message).toContain('- `worker.handler-done`: the effect was doubled: 2 instead of 1')
    expect(message).not.toContain('`relay.claimed`')
  },
)

/** What the relay does with what the handler has published is the last that is done, as a rule when all is delivered. */
const lateSteps = ['relay.jobs-inserted', 'relay.committed', 'relay.workers-woken'] as const

/** Both ways, with and without processes, and both modes; in the full form each with each. */
const publishing = [
  ['a module', 'exactly-once', 'exactly-once.committed'],
  ['a function', 'at-least-once', 'settle.committed'],
  ...(isFullForm
    ? ([
        ['a module', 'at-least-once', 'settle.committed'],
        ['an object', 'exactly-once', 'exactly-once.committed'],
      ] as const)
    : []),
] as const

test.each(publishing)(
  'a handler that publishes (%s, %s) is crashed at its steps, those after the last commit included',
  // A process for each crash.
  { timeout: 360_000, tags: ['slow'] },
  async (how, mode, lastCommit) => {
    const module = new URL('../support/publishing-subscriber.ts', import.meta.url)
    module.searchParams.set('mode', mode)
    const made =
      how === 'a module'
        ? module
        : how === 'an object'
          ? bookedOnce
          : ({ url }: CrashDatabase) => bookedAtLeastOnce(url)
    const written = mode === 'exactly-once' ? 'publish.written' : 'publish.committed'
    // Of a module, the last alone in the short form: a process for each crash.
    const late = how === 'a module' && !isFullForm ? lateSteps.slice(-1) : lateSteps
    const { crashes, notReached } = await crashAtEveryStep(made as never, paid, {
      ...options,
      database: inject('serverUrl'),
      only: [...late, written, lastCommit],
      prepare: async ({ query }: CrashDatabase) => query(entriesSql),
      effects: async ({ query }: CrashDatabase) => (await query('select from entries')).length,
      check: async (_step, { query }) => {
        // Each entry has its event, whatever was killed.
        const [row] = await query(`select (select count(*) from entries) as entries,
            (select count(*) from bus.events where type = 'payment.refunded') as refunds`)
        expect(row?.['refunds']).toBe(row?.['entries'])
      },
    })
    const points = crashes.map(({ point }) => point)
    expect(points).toEqual(expect.arrayContaining([...late, written, lastCommit]))
    expect(crashes.length).toBeGreaterThan(notReached.length)
    expect(new Set(crashes.map(({ effects }) => effects))).toEqual(new Set([1]))
  },
)
