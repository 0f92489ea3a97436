import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { NonRetryableError } from '../../src/index.ts'
import { testBus } from '../support/bus.ts'
import { createFolder, runCli } from '../support/cli.ts'
import { createTestDatabase } from '../support/database.ts'

const catalogue = fileURLToPath(new URL('../support/catalogue.ts', import.meta.url))
const configuration = `import { paymentEvents } from ${JSON.stringify(catalogue)}
export default { events: paymentEvents, source: 'payment-service' }
`
const payload = '{"paymentId":"42","amountCents":1}'

describe('bossbus events publish', () => {
  test('stores the event with the source of the configuration, and prints its id', async () => {
    const database = await createTestDatabase()
    const folder = await createFolder({ 'bossbus.config.ts': configuration })
    const { code, out } = await runCli(
      folder,
      [
        ...['events', 'publish', 'payment.paid', '--tenant', 'acme', '--payload', payload],
        ...['--by', 'ada', '--reason', 'a repair'],
        ...[
          '--subject',
          'payments/42',
          '--event-id',
          'paid-42',
          '--metadata',
          'traceparent=00-1',
          '--metadata',
          '__proto__=x=y',
        ],
      ],
      { DATABASE_URL: database.url },
    )
    expect(code).toBe(0)
    expect(await testBus(database.url).events.get(out)).toMatchObject({
      ...{ id: out, type: 'payment.paid', tenantId: 'acme', source: 'payment-service' },
      ...{ subject: 'payments/42', eventId: 'paid-42', payload: { paymentId: '42', amountCents: 1 } },
      metadata: JSON.parse('{"traceparent":"00-1","__proto__":"x=y"}') as object,
    })
    expect(await testBus(database.url).audit.list()).toMatchObject([
      { action: 'publishByHand', by: 'ada', reason: 'a repair', eventId: out, tenantId: 'acme' },
    ])
  })

  test('takes the payload from a file and from standard input, and says of a duplicate that it is one', async () => {
    const database = await createTestDatabase()
    const folder = await createFolder({ 'bossbus.config.ts': configuration, 'p.json': payload })
    const call = ['events', 'publish', 'payment.paid', '--tenant', 'acme', '--event-id', 'one', '--json']
    const env = { DATABASE_URL: database.url }
    const first = await runCli(folder, [...call, '--payload', '@p.json'], env)
    const second = await runCli(folder, [...call, '--payload', '-'], env, { input: payload })
    const { id } = JSON.parse(first.out) as { id: string }
    expect(JSON.parse(first.out)).toEqual({ id, duplicate: false })
    expect(JSON.parse(second.out)).toEqual({ id, duplicate: true })
    expect(second.err).toContain('duplicate')
    expect(await database.count('select count(*) from bus.events')).toBe(1)
  })

  test.each([
    [
      'a payload that does not fit',
      ['payment.paid', '--payload', '{"paymentId":42}'],
      /BUS_INVALID_EVENT: .*does not fit its schema/,
    ],
    [
      'a type that the catalogue does not know',
      ['payment.piad'],
      /BUS_UNKNOWN_EVENT_TYPE: .*Did you mean "payment.paid"/,
    ],
    ['a type of another service', ['usage.billed', '--payload', '{"units":1}'], /BUS_SOURCE_NOT_ALLOWED/],
    ['a payload that is no JSON', ['note', '--payload', '{oops'], /^Expected --payload to be JSON/],
    ['a file that is not there', ['note', '--payload', '@none.json'], /none.json could not be read/],
    ['metadata without a name', ['note', '--metadata', '=1'], /^Expected --metadata to be <name=value>/],
    ['a NUL', ['note', '--subject', 'a\u0000b'], /BUS_INVALID/],
    [
      'a lone surrogate',
      ['note', '--payload', String.raw`"\ud800"`],
      /BUS_PAYLOAD_NOT_JSON: .*lone surrogate/,
    ],
    ['a megabyte of subject', ['note', '--subject', 'x'.repeat(1_000_000)], /BUS_INVALID/],
  ])('refuses %s, and stores nothing', async (_, args, error) => {
    const database = await createTestDatabase()
    const folder = await createFolder({ 'bossbus.config.ts': configuration })
    const ended = await runCli(folder, ['events', 'publish', ...args, '--tenant', 'acme'], {
      DATABASE_URL: database.url,
    })
    expect(ended.err).toMatch(error)
    expect(ended).toMatchObject({ code: 2, out: '' })
    expect(ended.err.length).toBeLessThan(2000)
    expect(await database.count('select count(*) from bus.events')).toBe(0)
  })

  test('refuses an event without a tenant', async () => {
    const { code, err } = await runCli(await createFolder(), ['events', 'publish', 'note'])
    expect(code).toBe(2)
    expect(err).toBe('An event belongs to a tenant: give --tenant <id>')
  })

  test('refuses to publish without a catalogue, unless --unchecked', async () => {
    const database = await createTestDatabase()
    const folder = await createFolder()
    const call = ['events', 'publish', 'anything.goes', '--tenant', 'acme', '--payload', '[1]']
    const env = { DATABASE_URL: database.url }
    const refused = await runCli(folder, call, env)
    expect(refused.code).toBe(2)
    expect(refused.err).toMatch(/There is no bossbus.config.ts .*--unchecked$/)
    const done = await runCli(folder, [...call, '--unchecked'], env)
    expect(done.code).toBe(0)
    expect(await database.rows('select id, type, source, payload from bus.events')).toEqual([
      { id: done.out, type: 'anything.goes', source: 'bossbus-cli', payload: [1] },
    ])
    expect(await database.count(`select count(*) from bus.audit where event_id = '${done.out}'`)).toBe(1)
  })

  test('with --dry-run checks the event, and stores nothing', async () => {
    const database = await createTestDatabase()
    const folder = await createFolder({ 'bossbus.config.ts': configuration })
    const call = ['events', 'publish', 'payment.paid', '--tenant', 'acme', '--payload', payload]
    const { code, out } = await runCli(folder, [...call, '--dry-run'], { DATABASE_URL: database.url })
    expect(code).toBe(0)
    expect(out).toBe('It could be published. Nothing was stored.')
    expect(await database.count('select count(*) from bus.events')).toBe(0)
    expect(await database.count('select count(*) from bus.audit')).toBe(0)
    expect((await runCli(folder, call, { DATABASE_URL: database.url })).code).toBe(0)
    expect(await database.count('select count(*) from bus.events')).toBe(1)
  })

  test('with --wait shows its deliveries until they are done, and fails if one is dead', async () => {
    const database = await createTestDatabase()
    const folder = await createFolder({ 'bossbus.config.ts': configuration })
    const bus = testBus(database.url)
    let attempts = 0
    bus.subscribe({
      ...{
        name: 'ledger',
        events: ['payment.paid'],
        retry: { maxAttempts: 2, delaySeconds: 1 },
      },
      handler: () => {
        attempts += 1
        if (attempts === 1) throw new Error('not yet')
      },
    })
    bus.subscribe({
      ...{ name: 'search', events: ['payment.refunded'] },
      handler: () => {
        throw new NonRetryableError('never')
      },
    })
    await bus.start()
    const env = { DATABASE_URL: database.url }
    const call = ['events', 'publish', '--wait', '--tenant', 'acme', '--payload', payload]
    const good = await runCli(folder, [...call, 'payment.paid'], env)
    expect(good.out).toMatch(
      /ledger {2}retrying, 1 attempt {2}Error: not yet[\s\S]*ledger {2}delivered in \d+ ms, 2 attempts/,
    )
    expect(good.code).toBe(0)
    const bad = await runCli(folder, [...call, 'payment.refunded'], env)
    expect(bad.out).toContain('search  dead, 1 attempt  NonRetryableError: never')
    expect(bad.code).toBe(1)
    const unwanted = await runCli(folder, ['events', 'publish', '--wait', '--tenant', 'acme', 'note'], env)
    expect(unwanted.code).toBe(0)
  })

  test('with --wait says after --wait-time why it is not done', async () => {
    const database = await createTestDatabase()
    const folder = await createFolder({ 'bossbus.config.ts': configuration })
    const { code, err } = await runCli(
      folder,
      ['events', 'publish', 'note', '--tenant', 'acme', '--wait', '--wait-time', '1s'],
      { DATABASE_URL: database.url },
    )
    expect(code).toBe(1)
    expect(err).toMatch(/^It is not done after 1\.0 s: Not dispatched yet/)
  })
})
