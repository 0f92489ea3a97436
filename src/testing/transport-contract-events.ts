import { randomBytes } from 'node:crypto'
import type { StoredEvent } from '../events/envelope.ts'

/** An event as the log has it, with some fields of its own. */
export function contractEvent(fields: Partial<StoredEvent>): StoredEvent {
  return {
    id: uuidV7(),
    type: 'contract.checked',
    source: 'contract',
    subject: undefined,
    tenantId: 'tenant-0',
    payload: { n: 1 },
    schemaVersion: 1,
    eventId: undefined,
    idempotencyKey: undefined,
    correlationId: undefined,
    causationId: undefined,
    orderingKey: undefined,
    metadata: {},
    expiresAt: undefined,
    createdAt: new Date(),
    ...fields,
  }
}

/** Events whose payload is their number. */
export function manyEvents(count: number, fields: (n: number) => Partial<StoredEvent>): StoredEvent[] {
  return Array.from({ length: count }, (_, n) => contractEvent({ payload: { n }, ...fields(n) }))
}

/** Payloads that transports get wrong. */
export function hardPayloads(): unknown[] {
  return [
    null,
    '',
    0,
    false,
    [],
    {},
    [1, 'two', null, { three: 3 }],
    { text: 'quotes " \' \\ \n \t ü 漢 🚀 \u2028 \u0007', nested: { a: { b: { c: [] } } } },
    { noncharacters: '\uFFFE\uFFFF' },
    { '': 'empty key', ключ: 1 },
    { number: 12_345_678_901_234, fraction: 0.1, small: 1e-7 },
    { long: 'x'.repeat(50_000) },
  ]
}

/** Events with every optional field, and with texts that are no topic, header or file name. */
export function hardKeys(): StoredEvent[] {
  const texts = ['a b', '漢字🚀', 'quote\'"\\', '../%2f?#&=', 'x'.repeat(255), '*.>', ' ']
  return texts.map((text) =>
    contractEvent({
      tenantId: text,
      orderingKey: text,
      subject: text,
      eventId: text,
      idempotencyKey: text,
      correlationId: text,
      causationId: uuidV7(),
      metadata: {
        traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
        header: text,
        'X-Other': text,
      },
      expiresAt: new Date(Date.now() + 3_600_000),
    }),
  )
}

let last = 0n

/** Ids of one process are in order, also within a millisecond. */
function uuidV7(): string {
  const now = BigInt(Date.now()) << 12n
  last = now > last ? now : last + 1n
  const head = (last >> 12n).toString(16).padStart(12, '0')
  const middle = (last & 0xf_ffn).toString(16).padStart(3, '0')
  const tail = randomBytes(8)
  tail[0] = ((tail[0] ?? 0) & 0x3f) | 0x80
  const hex = `${head}7${middle}${tail.toString('hex')}`
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}
