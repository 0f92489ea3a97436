import { expect, test } from 'vitest'
import { limits } from '../../../src/index.ts'
import { refusalOf } from '../../foundation/refusal.ts'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'

const insert = `insert into bus.events (tenant_id, type, source, payload) values`

const texts = [
  ['tenant_id', limits.keyLength],
  ['type', limits.typeLength],
  ['source', limits.sourceLength],
  ['subject', limits.subjectLength],
  ['event_id', limits.keyLength],
  ['idempotency_key', limits.keyLength],
  ['correlation_id', limits.keyLength],
  ['ordering_key', limits.keyLength],
] as const

/** These may be empty: an empty one is like any other. */
const mayBeEmpty = ['subject', 'correlation_id', 'ordering_key']

test.each(texts)(
  'plain SQL stores a %s of up to %i characters, and no longer one',
  async (column, maxLength) => {
    const { rows, count } = await createTestDatabase()
    const given = { tenant_id: 't', type: 'note', source: 'sql', payload: '1' }
    const add = async (text: string) => {
      const row = { ...given, [column]: text }
      const values = Object.keys(row).map((_, index) => `$${index + 1}`)
      return rows(
        `insert into bus.events (${Object.keys(row).join()}) values (${values.join()})`,
        Object.values(row),
      )
    }
    for (const text of ['x', '☃'.repeat(maxLength), '😀'.repeat(maxLength)]) await add(text)
    expect(await count('select count(*) from bus.events')).toBe(3)
    const empty = mayBeEmpty.includes(column) ? [] : ['']
    for (const text of [...empty, '☃'.repeat(maxLength + 1), 'x'.repeat(10_000_000)]) {
      await expect(add(text)).rejects.toMatchObject({ code: '23514', constraint: 'events_text_lengths' })
    }
    expect(await count('select count(*) from bus.outbox')).toBe(3)
  },
)

test('plain SQL stores metadata by name, up to 64 KiB, and nothing else as metadata', async () => {
  const { rows } = await createTestDatabase()
  const add = async (metadata: string) =>
    rows(
      `insert into bus.events (tenant_id, type, source, payload, metadata) values ('t', 'note', 'sql', '1', $1)`,
      [metadata],
    )
  await add('{}')
  await add(JSON.stringify({ a: 'x'.repeat(60_000) }))
  for (const metadata of ['[]', '"a"', '1', 'null', JSON.stringify({ a: 'x'.repeat(66_000) })]) {
    await expect(add(metadata)).rejects.toMatchObject({ code: '23514', constraint: 'events_metadata_object' })
  }
})

test('plain SQL stores no payload that grows beyond 64 MiB when it is read, and the relay goes on', async () => {
  const { url, db, rows } = await createTestDatabase()
  const bus = testBus(url)
  const seen: unknown[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
  await bus.start()
  // 13 bytes each, and 131,072 characters each for whoever reads them.
  const bomb = `[${Array.from({ length: 900 }, () => '1e131071').join()}]`
  await expect(rows(`${insert} ('t', 'note', 'sql', $1)`, [bomb])).rejects.toMatchObject({
    code: '23514',
    constraint: 'events_payload_length',
  })
  // Compressed, it would look small.
  await rows('create table elsewhere (payload jsonb)')
  await rows('insert into elsewhere values ($1)', [bomb])
  await expect(
    rows(
      `insert into bus.events (tenant_id, type, source, payload) select 't', 'note', 'sql', payload from elsewhere`,
    ),
  ).rejects.toMatchObject({ code: '23514' })
  await rows(`${insert} ('t', 'note', 'sql', '[1e30, 1e400]')`)
  await db.transaction(async (tx) => bus.publish(tx, { type: 'note', tenantId: 't', payload: 'afterwards' }))
  await until('both were delivered', () => seen.length === 2)
  // As JSON.parse has it: there is no larger number.
  expect(seen).toEqual([[1e30, Number.POSITIVE_INFINITY], 'afterwards'])
})

test('publish counts numbers as PostgreSQL writes them', async () => {
  const { url, db, rows } = await createTestDatabase()
  const bus = testBus(url)
  const publish = async (payload: unknown) =>
    db.transaction(async (tx) => bus.publish(tx, { type: 'note', tenantId: 't', payload }))
  const fitting = Array.from({ length: 800 }, (_, i) => (i % 2 === 0 ? 1e308 : 5e-324))
  await publish(fitting)
  expect(await rows('select octet_length(payload::text) > 240000 as long, payload from bus.events')).toEqual([
    { long: true, payload: fitting },
  ])
  expect(await refusalOf(async () => publish([...fitting, ...fitting]))).toMatchObject({
    code: 'BUS_PAYLOAD_TOO_LARGE',
  })
})

test('what was stored before the limits stays, and can be delivered', async () => {
  const { url, rows } = await createTestDatabase()
  for (const constraint of ['events_text_lengths', 'events_metadata_object', 'events_payload_length'])
    await rows(`alter table bus.events drop constraint ${constraint}`)
  await rows(`${insert} ($1, 'note', 'sql', '"old"')`, ['x'.repeat(300)])
  await rows(
    `alter table bus.events add constraint events_text_lengths check (char_length(tenant_id) between 1 and 255) not valid`,
  )
  const bus = testBus(url)
  const seen: unknown[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
  await bus.start()
  await until('it was delivered', () => seen.length === 1)
  expect(seen).toEqual(['old'])
})
