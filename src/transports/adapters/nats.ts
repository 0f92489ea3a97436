import type { JetStreamClient } from '@nats-io/jetstream'
import type { MsgHdrs } from '@nats-io/transport-node'
import {
  assertObject,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import { boundedCall } from '../sending/bounded-call.ts'
import { closedError, createConnectedTransport, loadPackage } from '../sending/connected-transport.ts'
import { destinationOption, type Destination } from '../sending/destination.ts'
import { createEncoder, type EncodedEvent, type EnvelopeOptions } from '../sending/envelope.ts'
import { encodeAndSendInKeyOrder } from '../sending/in-key-order.ts'
import { delivered, type PublishResult, type Transport } from '../sending/transport.ts'
import type { TransportUrl } from '../sending/transport-url.ts'

/** Options of {@link nats}. */
export interface NatsOptions extends EnvelopeOptions {
  /** `jetstream(connection)` of `@nats-io/jetstream`. The connection stays yours. */
  readonly jetstream: JetStreamClient
  /** The subject of an event, in a stream that exists. @defaultValue its type */
  readonly subject?: Destination | undefined
  /** The largest message: `max_payload` of the server. @defaultValue `1_048_576` */
  readonly maxBytes?: number | undefined
  /** How long an acknowledgement may take. @defaultValue `10` */
  readonly timeoutSeconds?: number | undefined
}

/** Messages whose acknowledgement is awaited at the same time. */
const maxInFlight = 500

const client = '@nats-io/transport-node'

/**
 * Sends events to NATS JetStream. An event is delivered when the stream has acknowledged it, by a quorum of its replicas. Its id is the message
 * id: within the duplicate window of the stream it is stored once. Events with the same key are acknowledged one by one, so they are in order.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function nats(options: NatsOptions): Transport {
  assertObject('options like { jetstream }', options)
  refuseUnknownKeys(
    options,
    ['jetstream', 'subject', 'maxBytes', 'timeoutSeconds', 'envelope', 'claimCheck'],
    'nats',
  )
  const { jetstream } = options
  if (typeof (jetstream as Partial<JetStreamClient> | undefined)?.publish !== 'function')
    throw invalidOption(
      `Expected \`jetstream\` to be a JetStream client, got ${describe(jetstream)}`,
      'jetstream',
    )
  const subjectOf = destinationOption('subject', options.subject ?? (({ type }) => type), subjectProblem)
  const maxBytes = integerOption('maxBytes', options.maxBytes, {
    min: 1,
    max: 67_108_864,
    default: 1_048_576,
  })
  const timeoutMs =
    1000 * integerOption('timeoutSeconds', options.timeoutSeconds, { min: 1, max: 300, default: 10 })
  const encode = createEncoder(options, { protocol: 'nats', maxBytes, overheadBytes: 200 })
  let loading: Promise<() => MsgHdrs> | undefined
  let isClosed = false

  /** Message headers are a class of the client. */
  async function loadHeaders(): Promise<() => MsgHdrs> {
    loading ??= loadPackage(client, async () => import('@nats-io/transport-node')).then(
      ({ headers }) => headers,
    )
    return loading
  }

  async function send(
    message: EncodedEvent,
    newHeaders: () => MsgHdrs,
    signal: AbortSignal,
  ): Promise<PublishResult> {
    const { event, body, contentType } = message
    const subject = subjectOf(event)
    const headers = newHeaders()
    headers.set('content-type', contentType)
    for (const [name, value] of Object.entries(message.headers)) headers.set(name, value)
    try {
      const call = jetstream.publish(subject, body, { msgID: event.id, headers, timeout: timeoutMs })
      await boundedCall(call, { signal, timeoutMs: timeoutMs + 1000 })
      return delivered
    } catch (error) {
      return isTooLarge(error) ? { status: 'rejected', error } : { status: 'retry', error }
    }
  }

  return {
    name: 'nats',
    order: 'key',
    maxEvents: 500,
    async open() {
      await loadHeaders()
    },
    async publish(events, { signal }) {
      if (isClosed) throw closedError('nats')
      const newHeaders = await loadHeaders()
      const sendOne = async (message: EncodedEvent): Promise<PublishResult> =>
        send(message, newHeaders, signal)
      return encodeAndSendInKeyOrder(events, encode, sendOne, maxInFlight)
    },
    async check({ signal }) {
      const ask = async (): Promise<unknown> => (await jetstream.jetstreamManager(false)).getAccountInfo()
      await boundedCall(ask(), { signal, timeoutMs })
    },
    async close() {
      isClosed = true
    },
  }
}

/** `nats://user:password@host:4222,host2:4222/subject?envelope=binary`, without a subject the type; a user without a password is a token. */
export function natsFromUrl(given: TransportUrl): Transport {
  const subject = given.path === '' ? undefined : given.path
  const envelope = given.choice('envelope', ['structured', 'binary', 'raw'])
  const maxBytes = given.integer('maxBytes', 1, 67_108_864)
  const tls = given.flag('tls', false)
  const servers = given.hosts(4222)
  const { username, password } = given
  const problem = subject === undefined ? undefined : subjectProblem(subject)
  if (problem !== undefined) throw given.refuse(`the subject is expected ${problem}`)
  return createConnectedTransport({
    ...{ name: 'nats', order: 'key', maxEvents: 500 },
    load: async () => {
      const { connect } = await loadPackage(client, async () => import('@nats-io/transport-node'))
      const { jetstream } = await loadPackage('@nats-io/jetstream', async () => import('@nats-io/jetstream'))
      return { connect, jetstream }
    },
    async connect({ connect, jetstream }) {
      const connection = await connect({
        servers,
        name: 'bossbus',
        maxReconnectAttempts: -1,
        ...(username === ''
          ? {}
          : password === ''
            ? { token: username }
            : { user: username, pass: password }),
        ...(tls ? { tls: {} } : {}),
      })
      const transport = nats({ jetstream: jetstream(connection), subject, envelope, maxBytes })
      return { transport, end: async () => connection.close(), ended: connection.closed() }
    },
  })
}

/** Subjects are tokens with dots between them; `*` and `>` are for subscribers. */
function subjectProblem(subject: string): string | undefined {
  const isSubject = /^[^\s.*>\p{Cc}]+(?:\.[^\s.*>\p{Cc}]+)*$/u.test(subject) && subject.length <= 1024
  return isSubject ? undefined : 'to be tokens with dots between them, without spaces, `*` and `>`'
}

/** The server's own limit, or that of the stream. */
function isTooLarge(error: unknown): boolean {
  const { message, apiError } = Object(error) as {
    message?: unknown
    apiError?: () => { err_code?: unknown }
  }
  if (typeof apiError === 'function' && apiError.call(error).err_code === 10_054) return true
  return typeof message === 'string' && /max_payload|maximum payload|message size exceeds/i.test(message)
}
