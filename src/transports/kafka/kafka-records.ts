import type { StoredEvent } from '../../events/envelope.ts'
import { invalidOption } from '../../foundation/options.ts'
import { createEncoder, tooLarge, type Envelope, type EnvelopeOptions } from '../sending/envelope.ts'

/** How an event becomes a record. `'debezium'`: as the outbox event router of Debezium writes it. */
export type KafkaEnvelope = Envelope | 'debezium'

/** An event, ready to be sent. */
export interface KafkaRecord {
  readonly topic: string
  /** Undefined without an ordering key: such records go to any partition. */
  readonly key: Buffer | undefined
  readonly value: Buffer
  readonly headers: readonly (readonly [name: string, value: string])[]
  /** At most what it takes in a batch. */
  readonly bytes: number
}

/** The topic of an event. */
export type TopicOf = (event: StoredEvent) => string

/** Lengths, times and offsets beside key, value and headers; and the lengths of up to 40 headers. */
const overheadBytes = 150

/** A batch has so many bytes beside its records. */
export const batchOverheadBytes = 61

/**
 * Makes the function that encodes events as records.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function createRecordEncoder(
  envelope: KafkaEnvelope,
  claimCheck: EnvelopeOptions['claimCheck'],
  topicOf: TopicOf,
  maxBatchBytes: number,
): (event: StoredEvent) => Promise<KafkaRecord> {
  const isDebezium = envelope === 'debezium'
  if (isDebezium && claimCheck !== undefined)
    throw invalidOption(
      "Expected no `claimCheck` with the envelope 'debezium', which has no place for `dataref`",
      'claimCheck',
    )
  const maxBytes = maxBatchBytes - batchOverheadBytes
  const encode = createEncoder(
    { envelope: isDebezium ? 'raw' : envelope, claimCheck },
    { protocol: 'kafka', maxBytes, overheadBytes },
  )
  return async (event) => {
    const topic = topicOf(event)
    const key = isDebezium ? aggregateKeyOf(event) : keyOf(event)
    const { body, contentType, headers, bytes } = await encode(event)
    const keyBytes = key?.length ?? 0
    if (bytes + keyBytes > maxBytes) throw tooLarge(event, bytes + keyBytes, maxBytes)
    return {
      topic,
      key,
      value: body,
      headers: isDebezium
        ? [
            ['id', event.id],
            ['eventType', event.type],
          ]
        : [['content-type', contentType], ...Object.entries(headers)],
      bytes: bytes + keyBytes,
    }
  }
}

/** Whether brokers accept the name. */
export function isTopic(name: unknown): name is string {
  return typeof name === 'string' && /^[A-Za-z0-9._-]{1,249}$/.test(name) && name !== '.' && name !== '..'
}

/** `outbox.event.order` for `order.placed`. */
export function debeziumTopicOf({ type }: StoredEvent): string {
  return `outbox.event.${type.split('.', 1)[0] ?? type}`
}

/**
 * The key of a record in UTF-8: the tenant, `/`, the ordering key. In the tenant `%` is written as `%25` and `/` as `%2F`, so that no two
 * tenants have the same key.
 */
function keyOf({ tenantId, orderingKey }: StoredEvent): Buffer | undefined {
  if (orderingKey === undefined) return undefined
  const tenant = tenantId.replaceAll('%', '%25').replaceAll('/', '%2F')
  return Buffer.from(`${tenant}/${orderingKey}`)
}

/** Debezium's key is the id of the aggregate alone. */
function aggregateKeyOf({ orderingKey }: StoredEvent): Buffer | undefined {
  return orderingKey === undefined ? undefined : Buffer.from(orderingKey)
}

/** The partition of a key, as the Java client and all that follow it choose it: Utils.toPositive(Utils.murmur2(key)) % partitions. */
export function partitionOf(key: Buffer, partitionCount: number): number {
  return (murmur2(key) & 0x7f_ff_ff_ff) % partitionCount
}

const multiplier = 0x5b_d1_e9_95

/** MurmurHash2 as org.apache.kafka.common.utils.Utils has it, signed. */
export function murmur2(data: Uint8Array): number {
  const { length } = data
  const view = new DataView(data.buffer, data.byteOffset, length)
  let hash = 0x97_47_b2_8c ^ length
  let at = 0
  for (; at + 4 <= length; at += 4) {
    let block = Math.imul(view.getInt32(at, true), multiplier)
    block = Math.imul(block ^ (block >>> 24), multiplier)
    hash = Math.imul(hash, multiplier) ^ block
  }
  if (at < length) {
    for (let last = length - 1; last >= at; last -= 1) hash ^= view.getUint8(last) << ((last - at) * 8)
    hash = Math.imul(hash, multiplier)
  }
  hash ^= hash >>> 13
  hash = Math.imul(hash, multiplier)
  return hash ^ (hash >>> 15)
}
