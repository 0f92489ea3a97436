import pg from 'pg'
import type { StoredEvent } from '../../events/envelope.ts'
import {
  assertObject,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import { boundedCall } from '../sending/bounded-call.ts'
import { closedError, createConnectedTransport } from '../sending/connected-transport.ts'
import { sendInKeyOrder } from '../sending/in-key-order.ts'
import { delivered, everyResult, type PublishResult, type Transport } from '../sending/transport.ts'
import type { TransportUrl } from '../sending/transport-url.ts'

/** What the transport needs of a pool of `pg`. */
export interface BossbusPool {
  readonly query: (text: string, values: unknown[]) => Promise<unknown>
}

/** Options of {@link bossbus}. */
export interface BossbusOptions {
  /** A pool of `pg` on the other database, with a role that may publish there. It stays yours. */
  readonly pool: BossbusPool
  /** How long a statement may take. @defaultValue `30` */
  readonly timeoutSeconds?: number | undefined
}

/** In the metadata of an event that came from another bus: the id that it had where it was published first. */
const originName = 'ceid'

/**
 * Publishes events into another database that has the schema `bus`, with `bus.publish`. Type, source, tenant, keys, schema version and payload stay as
 * they are; the id is a new one. The id that the event had first is its idempotency key there, and in its metadata as `ceid`: it is published once
 * as long as keys are kept (`retention.keysDays`), also when it comes back around a circle of buses.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function bossbus(options: BossbusOptions): Transport {
  assertObject('options like { pool }', options)
  refuseUnknownKeys(options, ['pool', 'timeoutSeconds'], 'bossbus')
  const { pool } = options
  if (typeof (pool as Partial<BossbusPool> | undefined)?.query !== 'function')
    throw invalidOption(`Expected \`pool\` to be a pool of pg, got ${describe(pool)}`, 'pool')
  const timeoutMs =
    1000 * integerOption('timeoutSeconds', options.timeoutSeconds, { min: 1, max: 300, default: 30 })
  let isClosed = false

  async function send(events: readonly StoredEvent[], signal: AbortSignal): Promise<void> {
    if (events.length === 0) return
    const json = JSON.stringify(events.map(toPublished))
    await boundedCall(pool.query('select count(*) from bus.publish($1::jsonb)', [json]), {
      signal,
      timeoutMs,
    })
  }

  async function sendOne(event: StoredEvent, signal: AbortSignal): Promise<PublishResult> {
    try {
      await send([event], signal)
      return delivered
    } catch (error) {
      return { status: isRefused(error) ? 'rejected' : 'retry', error }
    }
  }

  return {
    name: 'bossbus',
    order: 'key',
    maxEvents: 500,
    async publish(events, { signal }) {
      if (isClosed) throw closedError('bossbus')
      try {
        await send(events, signal)
        return everyResult(events.length, delivered)
      } catch (error) {
        // One that the other database refuses must not hold up the others.
        if (!isRefused(error)) return everyResult(events.length, { status: 'retry', error })
        const messages = events.map((event) => ({ event }))
        return sendInKeyOrder(messages, async ({ event }) => sendOne(event, signal), 4)
      }
    },
    async check({ signal }) {
      await boundedCall(pool.query('select count(*) from bus.publish($1::jsonb)', ['[]']), {
        signal,
        timeoutMs,
      })
    },
    async close() {
      isClosed = true
    },
  }
}

function toPublished(event: StoredEvent): object {
  const { id, metadata, type, source, subject, tenantId, payload, schemaVersion } = event
  const origin = metadata[originName] ?? id
  const { eventId, correlationId, causationId, orderingKey, expiresAt } = event
  return {
    ...{
      type,
      source,
      subject,
      tenantId,
      payload,
      schemaVersion,
      eventId,
      correlationId,
      causationId,
      orderingKey,
      expiresAt,
    },
    idempotencyKey: origin,
    metadata: { ...metadata, [originName]: origin },
  }
}

/** Classes of SQLSTATE that say what is wrong with the data. Everything else, such as a missing privilege, can be put right there. */
function isRefused(error: unknown): boolean {
  const { code } = Object(error) as { code?: unknown }
  return typeof code === 'string' && /^(?:22|23|54|BUS)/.test(code)
}

/** `bossbus:postgres://user:password@host/database`. */
export function bossbusFromUrl(given: TransportUrl): Transport {
  const connectionString = given.url.href.slice('bossbus:'.length)
  if (!/^postgres(?:ql)?:\/\//.test(connectionString) || !URL.canParse(connectionString))
    throw given.refuse('`bossbus:` is followed by the URL of a PostgreSQL database')
  given.allowAll()
  return createConnectedTransport({
    ...{ name: 'bossbus', order: 'key', maxEvents: 500 },
    load: async () => {},
    async connect() {
      const pool = new pg.Pool({ connectionString, max: 4, application_name: 'bossbus-transport' })
      pool.on('error', () => {})
      return { transport: bossbus({ pool }), end: async () => pool.end() }
    },
  })
}
