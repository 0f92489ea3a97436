import { Client } from '@modelcontextprotocol/client'
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { NonRetryableError } from '../../src/index.ts'
import { boundedAnswer } from '../../src/cli/mcp/bounded-answer.ts'
import { testBus } from '../support/bus.ts'
import { createFolder, runCli } from '../support/cli.ts'
import { cliMain } from '../support/cli-process.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { publish } from '../support/ledger.ts'

const index = fileURLToPath(new URL('../../src/index.ts', import.meta.url))
const zod = fileURLToPath(new URL('../../node_modules/zod/index.js', import.meta.url))
const configuration = `import { defineEvents } from ${JSON.stringify(index)}
import { z } from ${JSON.stringify(zod)}
const payload = z.object({ paymentId: z.string(), amountCents: z.number() })
export default {
  events: defineEvents({ 'payment.paid': { schema: payload, redact: ['amountCents'] } }),
  source: 'payment-service',
}
`

interface Assistant {
  readonly tools: () => Promise<string[]>
  /** The answer of a tool, and whether it is an error. */
  readonly ask: (
    name: string,
    args?: Record<string, unknown>,
  ) => Promise<{ readonly answer: Record<string, unknown>; readonly isError: boolean; readonly text: string }>
  readonly client: Client
}

/** An assistant with a server of its own, as editors start it. */
async function connect(url: string, args: readonly string[] = []): Promise<Assistant> {
  const folder = await createFolder({ 'bossbus.config.ts': configuration })
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: [cliMain, 'mcp', '--config', `${folder}/bossbus.config.ts`, ...args],
    env: { ...(process.env as Record<string, string>), DATABASE_URL: url, BOSSBUS_BY: 'ada' },
    stderr: 'inherit',
  })
  const client = new Client({ name: 'test', version: '1.0.0' })
  await client.connect(transport)
  onTestFinished(async () => client.close())
  return {
    client,
    tools: async () => (await client.listTools()).tools.map(({ name }) => name),
    async ask(name, given = {}) {
      const { content, isError } = await client.callTool({ name, arguments: given })
      const [first] = content as { text: string }[]
      const text = first?.text ?? ''
      return { text, answer: JSON.parse(text) as Record<string, unknown>, isError: isError === true }
    },
  }
}

/** A database in which payment X is dead for ledger. */
async function createIncident(): Promise<{ readonly database: TestDatabase; readonly id: string }> {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'mail', events: ['payment.paid'], handler: () => {} })
  bus.subscribe({
    name: 'ledger',
    events: ['payment.paid'],
    handler: () => {
      throw new NonRetryableError('the account is closed')
    },
  })
  await bus.start()
  const [id = ''] = await publish(database, bus, {
    ...{ type: 'payment.paid', tenantId: 'acme', eventId: 'payment-X' },
    payload: { paymentId: 'X', amountCents: 4200 },
  })
  await until('it is settled', async () => {
    const states = (await bus.deliveries(id)).map(({ state }) => state)
    return states.length === 2 && states.includes('dead') && states.includes('delivered')
  })
  await bus.stop()
  return { database, id }
}

describe('bossbus mcp', () => {
  test("answers 'where is payment X', with what must not be shown redacted", async () => {
    const { database, id } = await createIncident()
    const { ask, client } = await connect(database.url)
    expect(client.getServerVersion()?.name).toBe('bossbus')
    const { answer, text, isError } = await ask('show_event', { id: 'payment-X' })
    expect(isError).toBe(false)
    expect(answer).toMatchObject({
      event: { id, type: 'payment.paid', payload: { paymentId: 'X' } },
      explanation: {
        sentence: expect.stringMatching(/ledger/) as string,
        subscriptions: [
          {
            subscription: 'ledger',
            state: 'dead',
            sentence: expect.stringMatching(/the account is closed/) as string,
          },
          { subscription: 'mail', state: 'delivered' },
        ],
      },
    })
    expect(text).not.toContain('4200')
  })

  test('finds its way from the symptom to the event', async () => {
    const { database, id } = await createIncident()
    const { ask } = await connect(database.url)
    expect((await ask('status')).answer).toMatchObject({
      findings: expect.any(Array) as unknown[],
      deadLetters: [{ subscription: 'ledger', deadEvents: 1 }],
    })
    const groups = (await ask('dead_letter_groups')).answer as { groups: { fingerprint: string }[] }
    expect(groups.groups).toMatchObject([
      { message: 'the account is closed', count: 1, subscriptions: ['ledger'] },
    ])
    const { fingerprint = '' } = groups.groups[0] ?? {}
    expect((await ask('dead_letters', { fingerprint, limit: 5 })).answer).toMatchObject({
      deadLetters: [{ id }],
    })
    expect(
      (await ask('find_events', { status: 'dead', subscription: 'ledger', from: '1h' })).answer,
    ).toMatchObject({
      events: [{ id }],
    })
    expect((await ask('lookup', { text: 'payment-X' })).answer).toMatchObject({
      matches: [{ kind: 'business-id', id }],
    })
    expect((await ask('subscriptions')).answer).toMatchObject({
      subscriptions: [{ name: 'ledger' }, { name: 'mail' }],
    })
    expect((await ask('blocked_keys', { subscription: 'ledger' })).answer).toEqual({ keys: [] })
    for (const tool of ['stats', 'operations', 'audit'])
      expect({ tool, isError: (await ask(tool)).isError }).toEqual({ tool, isError: false })
  })

  test('has no tool that changes anything, unless it is allowed', async () => {
    const { database } = await createIncident()
    const reader = await connect(database.url)
    const reads = [
      ...['status', 'lookup', 'show_event', 'find_events', 'dead_letter_groups', 'dead_letters'],
      ...['blocked_keys', 'subscriptions', 'stats', 'operations', 'audit'],
    ]
    expect(await reader.tools()).toEqual(reads)
    const refused = await reader
      .ask('pause_subscription', { name: 'ledger', reason: 'a test' })
      .catch(() => ({ isError: true }))
    expect(refused.isError).toBe(true)
    expect(await database.rows('select from bus.audit')).toEqual([])
    const allowed = await connect(database.url, ['--allow', 'deadLetters.redrive,subscriptions.pause'])
    expect(await allowed.tools()).toEqual([...reads, 'redrive_dead_letters', 'pause_subscription'])
  })

  test('changes what it is allowed to with a reason, and is in the audit as the assistant of its user', async () => {
    const { database, id } = await createIncident()
    const { ask } = await connect(database.url, [
      '--allow',
      'deadLetters.redrive',
      '--allow',
      'subscriptions.pause',
    ])
    const noReason = await ask('pause_subscription', { name: 'ledger' }).catch(() => ({ isError: true }))
    expect(noReason.isError).toBe(true)
    const selection = { subscription: 'ledger', ids: [id], reason: 'the account is open again' }
    // Nothing is done unless a person has agreed.
    const dry = await ask('redrive_dead_letters', selection)
    expect(dry.isError).toBe(false)
    expect((await ask('operations')).answer).toEqual({ operations: [] })
    // No id is not all of them.
    const none = await ask('redrive_dead_letters', { ...selection, ids: [], dry_run: false }).catch(() => ({
      isError: true,
    }))
    expect(none.isError).toBe(true)
    expect((await ask('operations')).answer).toEqual({ operations: [] })
    const redrive = await ask('redrive_dead_letters', { ...selection, dry_run: false })
    expect(redrive.answer).toMatchObject({ kind: 'redrive', by: 'mcp:ada' })
    expect((await ask('pause_subscription', { name: 'ledger', reason: 'a look' })).answer).toEqual({
      changed: true,
    })
    expect((await ask('audit', { by: 'mcp:ada' })).answer).toMatchObject({
      records: [
        { action: 'subscriptions.pause', reason: 'a look' },
        { action: 'deadLetters.redrive', reason: 'the account is open again' },
      ],
    })
  })

  test('says what is wrong with what it is asked, and goes on', async () => {
    const { database } = await createIncident()
    const { ask } = await connect(database.url)
    const unknown = await ask('show_event', { id: 'payment-Y' })
    expect(unknown.answer).toEqual({
      problem:
        'Nothing in the log is named payment-Y. If it is in a payload, under paymentId for example: find_events with {"payload":{"paymentId":"payment-Y"}}',
    })
    const invalid = await ask('subscriptions', { name: 'nobody' })
    expect(invalid).toMatchObject({
      isError: true,
      answer: { error: { code: 'BUS_SUBSCRIPTION_NOT_FOUND' } },
    })
    const hostile = await ask('lookup', { text: 'a\u0000b' })
    expect(hostile).toMatchObject({ isError: true, answer: { error: { code: 'BUS_INVALID_OPTION' } } })
    const time = await ask('find_events', { from: 'yesterday' })
    expect(time.text).toContain('Expected `from` to be a time')
    expect((await ask('status')).isError).toBe(false)
  })

  test('serves while the database does not answer, and says so', async () => {
    const { ask, tools } = await connect('postgres://nobody@127.0.0.1:1/none')
    expect(await tools()).toContain('status')
    expect(await ask('status')).toMatchObject({
      isError: true,
      answer: {
        error: { code: 'BUS_DATABASE_UNAVAILABLE', mend: expect.stringContaining('server') as string },
      },
    })
  })

  test('refuses to allow what it does not know', async () => {
    const { code, err } = await runCli(await createFolder(), ['mcp', '--allow', 'deadLetters.redrvie'])
    expect(code).toBe(2)
    expect(err).toBe('There is no action deadLetters.redrvie. Did you mean deadLetters.redrive?')
  })
})

describe('the answers of bossbus mcp', () => {
  test('are bounded, and say that they are', () => {
    const long = {
      events: Array.from({ length: 500 }, (_, i) => ({ i, payload: { text: 'é'.repeat(100_000), n: 2n } })),
    }
    const text = boundedAnswer(long)
    expect(text.length).toBeLessThanOrEqual(40_000)
    expect(JSON.parse(text)).toMatchObject({
      isCut: true,
      answer: { events: expect.any(Array) as unknown[] },
    })
    const wide = Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`k${i}`, i]))
    expect(JSON.parse(boundedAnswer(wide))).toMatchObject({
      isCut: true,
      problem: expect.any(String) as string,
    })
  })

  test('are whole if they are short', () => {
    expect(boundedAnswer({ a: [1, 'b'], at: new Date(0) })).toBe(
      '{"a":[1,"b"],"at":"1970-01-01T00:00:00.000Z"}',
    )
  })
})
