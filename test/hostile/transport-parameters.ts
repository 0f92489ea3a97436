import type { ReceiverHandle, SubscriptionHandle } from '../../src/index.ts'
import { bossbus } from '../../src/transports/adapters/bossbus.ts'
import { eventbridge } from '../../src/transports/adapters/eventbridge.ts'
import * as fromHttp from '../../src/transports/adapters/http-source.ts'
import { http } from '../../src/transports/adapters/http.ts'
import { kafkaSource } from '../../src/transports/adapters/kafka-source.ts'
import { kafka } from '../../src/transports/adapters/kafka.ts'
import { mqtt } from '../../src/transports/adapters/mqtt.ts'
import { natsSource } from '../../src/transports/adapters/nats-source.ts'
import { nats } from '../../src/transports/adapters/nats.ts'
import { rabbitmqSource } from '../../src/transports/adapters/rabbitmq-source.ts'
import { rabbitmq } from '../../src/transports/adapters/rabbitmq.ts'
import { redisSource } from '../../src/transports/adapters/redis-source.ts'
import { redis } from '../../src/transports/adapters/redis.ts'
import { sns } from '../../src/transports/adapters/sns.ts'
import { sqs, sqsSource } from '../../src/transports/adapters/sqs.ts'
import * as transports from '../../src/transports/index.ts'
import { named, newBus, type Call, type Entry } from './calls.ts'
import { subscriptionNoText, subscriptionTexts } from './operating-parameters.ts'

/** Whatever a client of a broker is asked for: it is never called. */
const client = {
  ...{ publish: async () => {}, send: async () => {}, publishAsync: async () => {}, options: {} },
  ...{ createConfirmChannel: async () => {}, createChannel: async () => {}, sendCommand: async () => {} },
  ...{ consume: async () => {}, info: async () => {}, query: async () => {}, config: {} },
}

const transport: transports.Transport = transports.noop()

const source: transports.Source = {
  name: 'source',
  start: async () => {},
  stop: async () => {},
  check: async () => {},
}

export const forward = (options: object): SubscriptionHandle =>
  newBus({}).forward({ name: 'f', events: ['note'], to: transport, ...options })

export const receive = (options: object): ReceiverHandle =>
  newBus({}).receive({ name: 'r', from: source, ...options })

/** With a field of the transport that takes the text. */
const toWith =
  (name: string): Call =>
  (text) =>
    forward({ to: [{ ...transport, [name]: text }, transport] })

/** `bus.forward` and `bus.receive`. */
export const transferMethods: Readonly<Record<string, Entry>> = {
  'bus.forward': {
    texts: {
      ...subscriptionTexts(forward),
      to: (text) => forward({ to: text }),
      'to, in a list': (text) => forward({ to: [text] }),
      'to.name': toWith('name'),
      'to.order': toWith('order'),
      'to.maxEvents': toWith('maxEvents'),
      'to.targets': (text) => forward({ to: { ...transport, targets: [text] } }),
    },
    noText: subscriptionNoText,
    probe: (name) => forward({ [name]: 1 }),
  },
  'bus.forward().ready': { texts: {} },
  'bus.forward().stop': {
    texts: { graceMs: async (text) => forward({}).stop({ graceMs: text as unknown as number }) },
    probe: async (name) => forward({}).stop({ [name]: 1 }),
  },
  'bus.receive': {
    texts: {
      name: (text) => receive({ name: text }),
      tenantId: (text) => receive({ tenantId: text }),
      from: (text) => receive({ from: text }),
      'from.name': (text) => receive({ from: { ...source, name: text } }),
      map: (text) => receive({ map: text }),
      'unknown option': (text) => receive(named(text)),
    },
    probe: (name) => receive({ [name]: 1 }),
  },
  'bus.receive().ready': { texts: {} },
  'bus.receive().stop': {
    texts: { graceMs: async (text) => receive({}).stop({ graceMs: text as unknown as number }) },
    probe: async (name) => receive({}).stop({ [name]: 1 }),
  },
}

/** A function with options: each of the names, and one that it does not have, takes the text. */
function making(make: (options: never) => unknown, options: object, names: readonly string[]): Entry {
  const call = (more: object): unknown => make({ ...options, ...more } as never)
  return {
    texts: {
      ...Object.fromEntries(names.map((name) => [name, (text: string) => call({ [name]: text })])),
      'unknown option': (text) => call(named(text)),
    },
    probe: (name) => call({ [name]: 1 }),
  }
}

const arn = 'arn:aws:sns:eu-central-1:123456789012:t'
const enveloped = ['envelope', 'claimCheck']
const signedBy = ['secrets', 'toleranceSeconds']

/** What `bossbus/transports` exports that is a function, by name. */
const ofIndex: Readonly<Record<string, Entry>> = {
  consoleTransport: making(transports.consoleTransport, {}, ['payload', 'write']),
  fanOut: { texts: { transports: (text) => transports.fanOut(text as never) } },
  file: making(transports.file, { path: 'events.ndjson' }, ['path', ...enveloped]),
  messageHeaders: {
    texts: {
      'a name': (text) => transports.messageHeaders([[text, 'x']]),
      'a value': (text) => transports.messageHeaders([['x', text]]),
    },
  },
  noop: { texts: {} },
  repeatUntilStored: { texts: {} },
  transportFromUrl: {
    texts: {
      'a URL': (text) => transports.transportFromUrl(text),
      'a scheme': (text) => transports.transportFromUrl(`${text}://host/events`),
      ...Object.fromEntries(
        [
          'amqp',
          'bossbus',
          'eventbridge',
          'file',
          'https',
          'kafka',
          'mqtt',
          'nats',
          'redis',
          'sns',
          'sqs',
        ].map((scheme) => [
          scheme,
          (text: string) => {
            for (const url of [
              `${scheme}:${text}`,
              `${scheme}://${text}/events`,
              `${scheme}://host/${text}`,
              `${scheme}://host/events?${text}=${text}`,
            ])
              tryUrl(url)
          },
        ]),
      ),
    },
  },
}

/** Makes a transport, or meets the error of a URL. */
function tryUrl(url: string): void {
  try {
    transports.transportFromUrl(url)
  } catch (error) {
    const { code, message } = error as Error & { readonly code?: unknown }
    if (code !== 'BUS_INVALID_TRANSPORT_URL') throw new Error(`${String(code)}: ${message}`, { cause: error })
    if (message.length > 1000) throw error
  }
}

const httpTo = (options: object): transports.Transport => http({ url: 'https://example.org/', ...options })
const httpOptions = making(httpTo, {}, [
  ...['url', 'headers', 'secrets', 'timeoutSeconds', 'maxRequests', 'maxBytes', 'allowPrivate'],
  ...['allowHttp', 'ports', ...enveloped],
])

/** What the modules of `bossbus/transports/*` are for. What makes a transport from a URL is behind `transportFromUrl`. */
const ofModules: Readonly<Record<string, Entry>> = {
  bearerToken: making(fromHttp.bearerToken, { secrets: 'x'.repeat(16) }, ['secrets']),
  bossbus: making(bossbus, { pool: client }, ['pool', 'timeoutSeconds']),
  cloudEvents: making(fromHttp.cloudEvents, { verify: 'anyone' }, ['verify']),
  eventbridge: making(eventbridge, { client }, [
    ...['client', 'eventBus', 'commands', 'timeoutMs', ...enveloped],
  ]),
  github: making(fromHttp.github, { secrets: 'x'.repeat(16) }, ['secrets']),
  http: {
    ...httpOptions,
    texts: {
      ...httpOptions.texts,
      'the name of a header': (text) => httpTo({ headers: named(text, 'x') }),
      'the value of a header': (text) => httpTo({ headers: { x: text } }),
      'a key': (text) => httpTo({ secrets: [text] }),
    },
  },
  httpSource: making(fromHttp.httpSource, { verify: () => undefined }, [
    ...['verify', 'maxBodyBytes', 'timeoutSeconds', 'maxRequests'],
  ]),
  kafka: making(kafka, { producer: client, topic: 't' }, [
    ...['producer', 'topic', 'maxMessageBytes', ...enveloped],
  ]),
  kafkaSource: making(kafkaSource, { consumer: client, topics: ['t'] }, [
    ...['consumer', 'topics', 'startAt', 'batchSize'],
  ]),
  mqtt: making(mqtt, { client }, ['client', 'topic', 'qos', 'maxBytes', 'timeoutSeconds', ...enveloped]),
  nats: making(nats, { jetstream: client }, [
    ...['jetstream', 'subject', 'maxBytes', 'timeoutSeconds', ...enveloped],
  ]),
  natsSource: making(natsSource, { consumer: client }, ['consumer', 'batchSize']),
  rabbitmq: making(rabbitmq, { connection: client, exchange: 'e' }, [
    ...['connection', 'exchange', 'routingKey', 'persistent', 'mandatory', 'maxBytes', 'timeoutSeconds'],
    ...enveloped,
  ]),
  rabbitmqSource: making(rabbitmqSource, { connection: client, queue: 'q' }, [
    ...['connection', 'queue', 'prefetch'],
  ]),
  redis: making(redis, { client }, [
    ...['client', 'stream', 'maxLength', 'replicas', 'timeoutSeconds', ...enveloped],
  ]),
  redisSource: making(redisSource, { client, stream: 's', group: 'g', consumer: 'c' }, [
    ...['client', 'stream', 'group', 'consumer', 'batchSize', 'claimAfterSeconds'],
  ]),
  sns: making(sns, { client, topicArn: arn }, [
    ...['client', 'topicArn', 'maxMessageBytes', 'commands', 'timeoutMs', ...enveloped],
  ]),
  sqs: making(sqs, { client, queueUrl: 'https://sqs/1/q' }, [
    ...['client', 'queueUrl', 'commands', 'timeoutMs', ...enveloped],
  ]),
  sqsSource: making(sqsSource, { client, queueUrl: 'https://sqs/1/q' }, [
    ...['client', 'queueUrl', 'commands', 'timeoutMs', 'concurrency', 'visibilityTimeoutSeconds'],
    'waitTimeSeconds',
  ]),
  standardWebhooks: making(fromHttp.standardWebhooks, { secrets: `whsec_${'a'.repeat(32)}` }, signedBy),
  stripe: making(fromHttp.stripe, { secrets: 'x'.repeat(16) }, signedBy),
}

/** Functions of `bossbus/transports` and of its modules. */
export const transportFunctions: Readonly<Record<string, Entry>> = { ...ofIndex, ...ofModules }
