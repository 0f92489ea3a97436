import { describe, expect, test } from 'vitest'
import { createRequestBus } from '../../src/fastify/request-bus.ts'
import type { Bus } from '../../src/index.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase } from '../support/database.ts'
import { characterCount, firstCharacters, isLonger } from '../../src/foundation/text.ts'

const rocket = '🚀'

describe('characters', () => {
  test.each<[string, number]>([
    ['', 0],
    ['abc', 3],
    [rocket, 1],
    [`a${rocket}b`, 3],
    ['\ud83d', 1],
    ['\ude80\ud83d', 2],
    ['e\u0301', 2],
  ])('of %j are %i', (text, count) => {
    expect(characterCount(text)).toBe(count)
    expect(isLonger(text, count)).toBe(false)
    expect(isLonger(text, count - 1)).toBe(true)
  })

  test('are never cut in two', () => {
    expect(firstCharacters(`a${rocket.repeat(9)}`, 4)).toBe(`a${rocket.repeat(3)}`)
    expect(firstCharacters('abc', 4)).toBe('abc')
  })
})

test('keeps the id of a request as correlation id where an emoji is at the limit', async () => {
  const defaults: unknown[] = []
  const bus = { with: (given: unknown) => defaults.push(given) } as unknown as Bus
  createRequestBus(bus, { id: `a${rocket.repeat(300)}` }, undefined)
  expect(defaults).toEqual([{ correlationId: `a${rocket.repeat(254)}` }])
})

test('a tenant, a key and a subject of 255 emoji are stored, read, erased and cancelled alike, whoever publishes', async () => {
  const { url, db, rows } = await createTestDatabase()
  const bus = testBus(url)
  const tenantId = rocket.repeat(255)
  await rows(
    `insert into bus.events (tenant_id, type, source, payload, correlation_id) values ($1, 'note', 'sql', '{}', $1)`,
    [tenantId],
  )
  const event = { type: 'note', tenantId, payload: {}, correlationId: tenantId, subject: tenantId } as never
  const { id } = await db.transaction(async (tx) => bus.publish(tx, event))
  expect(await bus.tenant(tenantId).events.find({ correlationId: tenantId })).toHaveLength(2)
  expect(await bus.events.find({ tenantId })).toHaveLength(2)
  expect(await bus.cancel(id, { tenantId })).toBe(false)
  expect(await bus.erase({ tenantId, subject: tenantId, by: rocket.repeat(255) })).toMatchObject({
    eventCount: 1,
  })
  const longer = rocket.repeat(256)
  await expect(
    db.transaction(async (tx) => bus.publish(tx, { ...(event as object), tenantId: longer } as never)),
  ).rejects.toMatchObject({
    code: 'BUS_INVALID_EVENT',
    message: expect.stringContaining('256 characters') as string,
  })
  expect(() => bus.tenant(longer)).toThrow('256 characters')
})
