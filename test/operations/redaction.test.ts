import { expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { createBus, defineEvents } from '../../src/index.ts'
import { recordingLogger } from '../support/bus.ts'
import { canary, traceOfCanary } from '../support/canary.ts'
import { createTestDatabase, until } from '../support/database.ts'

test('what redact names is in no read API, in the shape of no version, and reaches the handler', async () => {
  const { url, db, rows } = await createTestDatabase()
  const events = defineEvents({
    note: {
      schema: z.object({ card: z.object({ number: z.string(), kind: z.string() }) }),
      version: 2,
      upcast: {
        1: ({ cardNumber }: { cardNumber: string }) => ({ card: { number: cardNumber, kind: 'old' } }),
      },
      redact: ['card.number', 'cardNumber'],
    },
  })
  const bus = createBus({ database: url, events, source: 'tests', logger: recordingLogger() })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  const seen: unknown[] = []
  bus.subscribe({
    name: 'seen',
    events: ['note'],
    handler: ({ payload }) => void seen.push(payload.card.number),
  })
  await bus.start()
  await rows(
    `insert into bus.events (tenant_id, type, source, schema_version, payload) values
     ('acme', 'note', 'sql', 1, $1), ('acme', 'unheard-of', 'sql', 1, $1)`,
    [JSON.stringify({ cardNumber: canary, open: 1 })],
  )
  const { id } = await db.transaction(async (tx) =>
    bus.publish(tx, {
      ...{ type: 'note', tenantId: 'acme', correlationId: 'c' },
      payload: { card: { number: canary, kind: 'x' } },
    }),
  )
  await until('both are delivered', () => seen.length === 2)
  expect(seen).toEqual([canary, canary])
  const shown = {
    found: await bus.events.find({ order: 'oldest' }),
    got: await bus.events.get(id),
    traced: await bus.events.trace('c'),
    ofTenant: await bus.tenant('acme').events.find(),
  }
  expect(JSON.stringify(shown)).not.toMatch(traceOfCanary)
  expect(shown.found.map(({ payload }) => payload)).toEqual([
    { cardNumber: '[redacted]', open: 1 },
    '[redacted]',
    { card: { number: '[redacted]', kind: 'x' } },
  ])
  expect(shown.got?.payload).toEqual({ card: { number: '[redacted]', kind: 'x' } })
  expect([shown.traced.length, shown.ofTenant.length]).toEqual([1, 3])
})
