import { assertObject, integerOption, refuseUnknownKeys } from '../../foundation/options.ts'
import { callOf, type RedisClient } from '../redis/redis-client.ts'
import { boundedCall } from '../sending/bounded-call.ts'
import { closedError, createConnectedTransport, loadPackage } from '../sending/connected-transport.ts'
import { destinationOption, type Destination } from '../sending/destination.ts'
import { createEncoder, type EncodedEvent, type EnvelopeOptions } from '../sending/envelope.ts'
import { encodeAndSendInKeyOrder } from '../sending/in-key-order.ts'
import { delivered, type PublishResult, type Transport } from '../sending/transport.ts'
import type { TransportUrl } from '../sending/transport-url.ts'

export type { RedisClient } from '../redis/redis-client.ts'

/** Options of {@link redis}. */
export interface RedisOptions extends EnvelopeOptions<'structured' | 'raw'> {
  /** The client stays yours. */
  readonly client: RedisClient
  /** The key of the stream. @defaultValue `events` */
  readonly stream?: Destination | undefined
  /** About how many entries the stream keeps: older ones are cut off, whether they were read or not. @defaultValue all */
  readonly maxLength?: number | undefined
  /** How many replicas must have an event before it is delivered (`WAIT`). @defaultValue `0` */
  readonly replicas?: number | undefined
  /** How long an answer may take. @defaultValue `10` */
  readonly timeoutSeconds?: number | undefined
}

const optionNames = ['client', 'stream', 'maxLength', 'replicas', 'timeoutSeconds', 'envelope', 'claimCheck']
const maxBytes = 268_435_456
const maxInFlight = 500

/**
 * Appends events to a stream of Redis or Valkey. Each entry has the fields `id`, `type`, `tenant` and, as JSON, `event` (the CloudEvent) or `payload`
 * (with the envelope `raw`). An entry is as durable as the server is: with `appendfsync everysec` a crash loses up to a second. A stream has no key
 * for duplicates: readers know them by `id`.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function redis(options: RedisOptions): Transport {
  assertObject('options like { client }', options)
  refuseUnknownKeys(options, optionNames, 'redis')
  const call = callOf(options.client)
  const streamOf = destinationOption('stream', options.stream ?? 'events', streamProblem)
  const maxLength =
    options.maxLength === undefined
      ? undefined
      : integerOption('maxLength', options.maxLength, { min: 1, max: Number.MAX_SAFE_INTEGER, default: 1 })
  const replicas = integerOption('replicas', options.replicas, { min: 0, max: 100, default: 0 })
  const timeoutMs =
    1000 * integerOption('timeoutSeconds', options.timeoutSeconds, { min: 1, max: 300, default: 10 })
  const encode = createEncoder(options, { protocol: undefined, maxBytes })
  const bodyField = options.envelope === 'raw' ? 'payload' : 'event'
  const trimming = maxLength === undefined ? [] : ['MAXLEN', '~', String(maxLength)]
  let isClosed = false

  async function send({ event, body }: EncodedEvent, signal: AbortSignal): Promise<PublishResult> {
    const stream = streamOf(event)
    const fields = ['id', event.id, 'type', event.type, 'tenant', event.tenantId, bodyField, body.toString()]
    try {
      const appended = call('XADD', stream, ...trimming, '*', ...fields)
      await boundedCall(appended, { signal, timeoutMs })
      return delivered
    } catch (error) {
      return { status: 'retry', error }
    }
  }

  /** All writes of the connection before it. */
  async function waitForReplicas(signal: AbortSignal): Promise<void> {
    const count = await boundedCall(call('WAIT', String(replicas), String(timeoutMs)), {
      signal,
      timeoutMs: timeoutMs + 1000,
    })
    if (Number(count) < replicas)
      throw new Error(`${Number(count)} of ${replicas} replicas have acknowledged`)
  }

  return {
    name: 'redis',
    order: 'key',
    maxEvents: 500,
    async publish(events, { signal }) {
      if (isClosed) throw closedError('redis')
      const sendOne = async (message: EncodedEvent): Promise<PublishResult> => send(message, signal)
      const results = await encodeAndSendInKeyOrder(events, encode, sendOne, maxInFlight)
      if (replicas > 0 && results.includes(delivered)) await waitForReplicas(signal)
      return results
    },
    async check({ signal }) {
      await boundedCall(call('PING'), { signal, timeoutMs })
    },
    async close() {
      isClosed = true
    },
  }
}

/** `redis://user:password@host:6379/0?stream=events&maxLength=1000000`, or `rediss:`. */
export function redisFromUrl(given: TransportUrl): Transport {
  given.host(6379)
  const stream = given.text('stream')
  const maxLength = given.integer('maxLength', 1, 1e15)
  const replicas = given.integer('replicas', 0, 100)
  const envelope = given.choice('envelope', ['structured', 'raw'])
  if (!/^\d*$/.test(given.path)) throw given.refuse('the path is the number of a database')
  const url = new URL(given.url)
  url.search = ''
  return createConnectedTransport({
    ...{ name: 'redis', order: 'key', maxEvents: 500 },
    load: async () => loadPackage('redis', async () => import('redis')),
    async connect({ createClient }) {
      let wasConnected = false
      const client = createClient({
        url: url.href,
        // A command that is sent while the server is down fails: the bus retries it.
        disableOfflineQueue: true,
        pingInterval: 10_000,
        socket: {
          connectTimeout: 10_000,
          // Of silence, although there are pings: the server has gone without a word.
          socketTimeout: 30_000,
          // The first connection fails, so that the event is retried; later ones are tried for ever.
          reconnectStrategy: (count, cause) => (wasConnected ? Math.min(50 * 2 ** count, 2000) : cause),
        },
      })
      client.on('error', () => {})
      await client.connect()
      wasConnected = true
      const transport = redis({ client, stream, maxLength, replicas, envelope })
      return { transport, end: async () => client.destroy() }
    },
  })
}

function streamProblem(key: string): string | undefined {
  return key !== '' && Buffer.byteLength(key) <= 1024 ? undefined : 'to have 1 to 1,024 bytes'
}
