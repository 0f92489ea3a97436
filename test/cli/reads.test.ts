import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { drizzle } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { describe, expect, test } from 'vitest'
import { NonRetryableError } from '../../src/index.ts'
import { createFolder, runCli, type CliResult } from '../support/cli.ts'
import { runCliProcess } from '../support/cli-process.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { testBus } from '../support/bus.ts'
import { startOwnServer } from '../support/own-server.ts'
import { shareTemplate } from '../support/shared-template.ts'

const catalogue = fileURLToPath(new URL('../support/catalogue.ts', import.meta.url))
const configuration = `export { paymentEvents as events } from ${JSON.stringify(catalogue)}
import { paymentEvents } from ${JSON.stringify(catalogue)}
export default { events: paymentEvents, source: 'payment-service' }
`
const hostile = 'red \u001b[31m \u202e\nline'

interface Busy {
  /** Delivered to mail, dead for ledger, and the cause of `refunded`. */
  readonly paid: string
  readonly refunded: string
  /** Nobody wants it. */
  readonly note: string
}

/** A database with a dead letter, a cause and its effect, and a paused subscription, without a process. */
const createBusy = shareTemplate(async (url): Promise<Busy> => {
  const client = postgres(url, { max: 2, onnotice: () => {} })
  const db = drizzle({ client })
  const bus = testBus(url)
  bus.subscribe({
    name: 'ledger',
    events: ['payment.paid'],
    handler: () => {
      throw Object.assign(new NonRetryableError(hostile), { name: 'AccountMissing' })
    },
  })
  bus.subscribe({
    name: 'mail',
    events: ['payment.*'],
    handler: async (event, { publish: publishNext }) => {
      if (event.type === 'payment.paid')
        await db.transaction(async (tx) =>
          publishNext(tx, { type: 'payment.refunded', payload: { paymentId: event.payload.paymentId } }),
        )
    },
  })
  bus.subscribe({ name: 'search', events: ['usage.billed'], handler: () => {} })
  await bus.start()
  const published = await db.transaction(async (tx) =>
    bus.publishMany(tx, [
      {
        ...{ type: 'payment.paid', tenantId: 'nordwind', subject: 'payments/42', eventId: 'paid-42' },
        payload: { paymentId: hostile, amountCents: 4200 },
      },
      { type: 'note', tenantId: 'acme', payload: 1 },
    ]),
  )
  const [paid = '', note = ''] = published.map(({ id }) => id)
  await until('all is settled', async () => {
    const deliveries = await bus.deliveries(paid)
    const all = await bus.events.find({ type: 'payment.refunded' })
    const [effect] = all
    if (effect === undefined) return false
    const states = [...deliveries, ...(await bus.deliveries(effect.id))].map(({ state }) => state)
    return states.length === 3 && states.every((state) => state === 'dead' || state === 'delivered')
  })
  await bus.subscriptions.pause('search', { by: 'ada', reason: 'a deployment' })
  const [effect] = await bus.events.find({ type: 'payment.refunded' })
  await bus.stop()
  await client.end()
  return { paid, note, refunded: effect?.id ?? '' }
})

const createCatalogueFolder = async (): Promise<string> =>
  createFolder({ 'bossbus.config.ts': configuration })

const jsonLines = ({ out }: Pick<CliResult, 'out'>): Record<string, unknown>[] =>
  out === ''
    ? []
    : out
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line) as Record<string, unknown>)

/** Of every command that reads: a call, and whether an empty database is a failure of what is asked. */
const calls = (busy?: Busy): readonly (readonly [readonly string[], onEmpty: 0 | 1])[] => [
  [['status'], 0],
  [['instances'], 0],
  [['tenants'], 0],
  [['events', 'find'], 0],
  [['events', 'show', busy?.paid ?? '019a2279-8604-70ad-bda8-b7b51b3cd606'], 1],
  [['events', 'trace', busy?.paid ?? 'order-1'], 1],
  [['explain', busy?.paid ?? '019a2279-8604-70ad-bda8-b7b51b3cd606'], 1],
]

describe('every command that reads', () => {
  test('shows a busy database to a program, piped and as JSON, in this process as in one of its own', async () => {
    const { database, content: busy } = await createBusy()
    const folder = await createCatalogueFolder()
    const env = { DATABASE_URL: database.url }
    await database.rows(
      `insert into pgboss.job (name, data) values ('bus.mail', jsonb_build_object('eventIds', jsonb_build_array($1::text)))`,
      [busy.note],
    )
    for (const [args] of calls(busy)) {
      const piped = await runCli(folder, args, env)
      // A subscription without a process for which an event waits is an error.
      const expected = args[0] === 'status' ? 1 : 0
      expect({ args, code: piped.code, err: piped.err }).toEqual({ args, code: expected, err: piped.err })
      expect(piped.out.replaceAll(/[\t\n]/g, '')).not.toMatch(/[\p{Cc}\p{Cf}]/u)
      const json = await runCli(folder, [...args, '--json'], env)
      expect({ args, code: json.code }).toEqual({ args, code: expected })
      expect(() => jsonLines(json)).not.toThrow()
      expect({ args, isSomething: jsonLines(json).length > 0 }).toEqual({
        args,
        isSomething: args[0] !== 'instances',
      })
    }
    const call = ['events', 'show', busy.paid, '--json']
    const inProcess = await runCli(folder, call, env)
    const ownProcess = await runCliProcess(folder, call, env)
    expect(ownProcess).toEqual({ code: 0, signal: null, out: `${inProcess.out}\n`, err: '' })
    expect((await runCliProcess(folder, ['status'], env)).code).toBe(1)
  })

  test('shows an empty database: nothing is wrong with it, and what is asked for is not there', async () => {
    const { url } = await createTestDatabase()
    const folder = await createFolder()
    for (const [args, code] of calls()) {
      const shown = await runCli(folder, args, { DATABASE_URL: url }, { columns: 100 })
      expect({ args, code: shown.code }).toEqual({ args, code })
      expect(`${shown.out}${shown.err}`).not.toBe('')
      const json = await runCli(folder, [...args, '--json'], { DATABASE_URL: url })
      expect({ args, code: json.code }).toEqual({ args, code })
    }
  })

  test('reads a standby, where nothing can be written', async () => {
    const server = await startOwnServer()
    const [row] = await server.rows('show data_directory')
    await server.rows('checkpoint')
    await server.kill()
    await writeFile(join(String(row?.['data_directory']), 'standby.signal'), '')
    await server.restart()
    expect(await server.rows('select pg_is_in_recovery() as is')).toEqual([{ is: true }])
    const folder = await createFolder()
    for (const [args, code] of calls()) {
      const shown = await runCli(folder, args, { DATABASE_URL: server.url })
      expect({ args, code: shown.code, err: shown.err }).toEqual({ args, code, err: shown.err })
    }
  })
})

describe('a busy database', () => {
  test('is one screen for a person', async () => {
    const {
      database,
      content: { paid, note },
    } = await createBusy()
    const folder = await createCatalogueFolder()
    const show = async (...args: string[]): Promise<string> =>
      (await runCli(folder, args, { DATABASE_URL: database.url, NO_COLOR: '1' }, { columns: 160 })).out
    const status = await show('status')
    expect(status).toMatch(/^3 things need you: no error, 3 warnings\.$/m)
    expect(status).toMatch(/^warning {2}subscription-unserved {2}.*Nothing waits for them yet$/m)
    expect(status).not.toContain('not-started')
    expect(status).toMatch(/^SUBSCRIPTION {2}STATE/m)
    expect(status).toMatch(/^ledger .* 1 {10}0 {2}payment-service$/m)
    expect(status).toMatch(/^search {8}paused/m)
    expect(status).toContain('Empty: everything is dispatched.')
    expect(status).toMatch(
      /^ledger {13}1 {2}(?:now|.* ago) +AccountMissing \(BUS_NON_RETRYABLE\): red \\u\{1b\}\[31m/m,
    )

    const page = await show('events', 'show', paid)
    const [title, answer] = page.split('\n')
    expect(title).toBe(`payment.paid  ${paid}`)
    expect(answer).toBe('Dead for ledger; delivered to mail.')
    for (const expected of [
      /^subject {9}payments\/42$/m,
      /^ledger {8}dead {8}Dead letter since .*, after 1 attempt: AccountMissing/m,
      /^search {8}not routed {2}Not routed: no pattern matches payment\.paid \(usage\.billed\)\.$/m,
      /^\d\d:\d\d:\d\d\.\d{3} {20,}published by payment-service$/m,
      /^[\d:.]{12} +\+[\d.]+ m?s {2}ledger {8}attempt 1 failed after .*: AccountMissing/m,
      /^[\d:.]{12} +\+[\d.]+ m?s {2}mail {10}attempt 1 succeeded after/m,
      /^Has caused$/m,
      /payment\.refunded/,
      /^ {2}"amountCents": 4200$/m,
    ])
      expect(page).toMatch(expected)
    // The same by its business id.
    expect(await show('events', 'show', 'paid-42')).toContain(title)

    const trace = await show('events', 'trace', paid)
    expect(trace).toMatch(/^payment\.paid .*\n {2}└ payment\.refunded /m)
    expect(await show('explain', note)).toMatch(
      /^Dispatched to nobody: no subscription wanted it\.\n\nledger {2}not routed\n {2}Not routed: no pattern matches /,
    )
    const explained = await show('explain', paid, 'search')
    expect(explained).toContain('no pattern matches')
    expect(explained).not.toContain('ledger')
    expect(await show('tenants')).toMatch(/^nordwind +2 +67 %/m)
    expect(await show('events', 'show', 'nothing-of-that-name')).toBe('')
  })

  test('is JSON with the names of the API for a program', async () => {
    const {
      database,
      content: { paid, refunded },
    } = await createBusy()
    const folder = await createCatalogueFolder()
    const read = async (...args: string[]): Promise<Record<string, unknown>[]> =>
      jsonLines(await runCli(folder, [...args, '--json'], { DATABASE_URL: database.url }))
    const [status] = await read('status')
    expect(status).toMatchObject({
      findings: expect.arrayContaining([
        expect.objectContaining({ code: 'subscription-paused', severity: 'warning' }),
      ]) as unknown,
      subscriptions: expect.arrayContaining([
        expect.objectContaining({ subscription: 'ledger', deadEvents: 1, lagSeconds: 0, state: 'unserved' }),
        expect.objectContaining({ subscription: 'search', pausedBy: 'ada' }),
      ]) as unknown,
      outbox: { depth: 0, lagSeconds: 0, scheduledEvents: 0 },
      deadLetters: [{ subscription: 'ledger', deadEvents: 1, eventId: paid }],
      operations: [],
    })
    const [page] = await read('events', 'show', paid)
    expect(page).toMatchObject({
      event: { id: paid, type: 'payment.paid', payload: { paymentId: hostile, amountCents: 4200 } },
      explanation: { id: paid, sentence: 'Dead for ledger; delivered to mail.', isInLog: true },
      deliveries: [
        { subscription: 'ledger', state: 'dead', timeline: [{ attempt: 1, succeeded: false }] },
        { subscription: 'mail', state: 'delivered', timeline: [{ attempt: 1, succeeded: true }] },
      ],
      effects: [{ id: refunded, causationId: paid }],
    })
    expect(await read('events', 'trace', paid)).toMatchObject([
      { id: paid, depth: 0, cause: 'none' },
      { id: refunded, depth: 1, cause: 'found' },
    ])
    expect(await read('explain', paid, 'ledger')).toMatchObject([
      { id: paid, subscriptions: [{ subscription: 'ledger', reason: { reason: 'dead' } }] },
    ])
  })

  test('hides payloads of types that no configuration knows', async () => {
    const { database, content } = await createBusy()
    const { out } = await runCli(await createFolder(), ['events', 'show', content.paid], {
      DATABASE_URL: database.url,
    })
    expect(out).toContain('[redacted]')
    expect(out).not.toContain('4200')
  })

  test('is found by every filter, and page after page', async () => {
    const {
      database,
      content: { paid, refunded, note },
    } = await createBusy()
    const folder = await createCatalogueFolder()
    const env = { DATABASE_URL: database.url }
    const find = async (...args: string[]): Promise<unknown[]> =>
      jsonLines(await runCli(folder, ['events', 'find', '--json', ...args], env)).map(({ id }) => id)
    const filters: readonly (readonly [readonly string[], readonly string[]])[] = [
      [[], [refunded, note, paid]],
      [
        ['--order', 'oldest'],
        [paid, note, refunded],
      ],
      [['--type', 'payment.paid'], [paid]],
      [
        ['--type', 'payment.paid', '--type', 'note'],
        [note, paid],
      ],
      [
        ['--type', 'payment.*'],
        [refunded, paid],
      ],
      [['--tenant', 'acme'], [note]],
      [['--status', 'dead'], [paid]],
      [
        ['--status', 'delivered', '--subscription', 'mail'],
        [refunded, paid],
      ],
      [['--status', 'dead', '--subscription', 'mail'], []],
      [['--payload', '{"amountCents":4200}'], [paid]],
      [
        ['--from', '1h'],
        [refunded, note, paid],
      ],
      [['--to', '1h'], []],
      [['--source', 'payment-service', '--subject', 'payments/42'], [paid]],
      [['--causation', paid], [refunded]],
      [['--correlation', paid], [refunded]],
      [['--event-id', 'paid-42'], [paid]],
      [['--idempotency-key', 'none'], []],
    ]
    for (const [args, ids] of filters) expect({ args, ids: await find(...args) }).toEqual({ args, ids })

    let command = ['events', 'find', '--limit', '1', '--json']
    const pages: unknown[] = []
    for (;;) {
      const { out, err } = await runCli(folder, command, env)
      pages.push(...jsonLines({ out }).map(({ id }) => id))
      if (!err.startsWith('Next: bossbus ')) break
      command = err.slice('Next: bossbus '.length).split(' ')
    }
    expect(pages).toEqual([refunded, note, paid])
    // The states that there are.
    const wrong = await runCli(folder, ['events', 'find', '--status', 'lost'], env)
    expect(wrong).toMatchObject({ code: 2, out: '' })
    expect(wrong.err).toMatch(/^Expected --status to be one of waiting, /)
  })
})
