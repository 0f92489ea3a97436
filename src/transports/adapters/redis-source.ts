import {
  assertObject,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import { createReadingSource, type Reading } from '../receiving/reading-source.ts'
import type { ReceivedMessage, Source } from '../receiving/source.ts'
import { callOf, type RedisClient } from '../redis/redis-client.ts'

export type { RedisClient } from '../redis/redis-client.ts'

/** Options of {@link redisSource}. */
export interface RedisSourceOptions {
  /** Does nothing else: it waits for entries. It stays yours. */
  readonly client: RedisClient
  readonly stream: string
  /** The consumer group. Made, from the start of the stream, if it does not exist. */
  readonly group: string
  /** The name of this process in the group: of no other one that runs. */
  readonly consumer: string
  /** The most entries that are stored in one transaction. @defaultValue `200` */
  readonly batchSize?: number | undefined
  /** After how long entries that another process took, and did not acknowledge, are taken over. @defaultValue `60` */
  readonly claimAfterSeconds?: number | undefined
}

const optionNames = ['client', 'stream', 'group', 'consumer', 'batchSize', 'claimAfterSeconds']

/** How long a read waits: so long does a stop. */
const blockMs = 1000

/** How often entries of others are looked for. */
const claimEveryMs = 5000

interface Entry {
  readonly id: string
  readonly fields: Readonly<Record<string, string>>
}

/**
 * Reads a stream of Redis or Valkey as a consumer of a group, for `bus.receive`. Entries are acknowledged after the database has committed
 * the events; those of a process that has ended are taken over. The id of a message is its stream and the id of its entry: it becomes one
 * event, however often it is delivered. The body is the field `event`, a CloudEvent, or `payload`, or else all fields as JSON.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function redisSource(options: RedisSourceOptions): Source {
  assertObject('options like { client, stream, group, consumer }', options)
  refuseUnknownKeys(options, optionNames, 'redisSource')
  const call = callOf(options.client)
  const stream = nameOption('stream', options.stream)
  const group = nameOption('group', options.group)
  const consumer = nameOption('consumer', options.consumer)
  const batchSize = integerOption('batchSize', options.batchSize, { min: 1, max: 10_000, default: 200 })
  const claimAfterMs =
    1000 * integerOption('claimAfterSeconds', options.claimAfterSeconds, { min: 1, max: 86_400, default: 60 })

  async function makeGroup(): Promise<void> {
    await call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM').catch((error: unknown) => {
      if (!String(error).includes('BUSYGROUP')) throw error
    })
  }

  async function store(entries: readonly Entry[], reading: Reading): Promise<void> {
    if (entries.length === 0) return
    await reading.store(entries.map((entry) => toMessage(entry, stream)))
    await call('XACK', stream, group, ...entries.map(({ id }) => id))
  }

  /** What this process had when it ended or lost its connection: it is there already. */
  async function readOwn(reading: Reading): Promise<void> {
    for (let after = '0'; !reading.signal.aborted;) {
      const [command, ...parameters] = readCommand(after)
      const entries = entriesOfReply(await call(command, ...parameters))
      const last = entries.at(-1)
      if (last === undefined) return
      await store(entries, reading)
      after = last.id
    }
  }

  async function claim(reading: Reading): Promise<void> {
    for (let cursor = '0-0'; !reading.signal.aborted;) {
      const reply = await call(
        ...(['XAUTOCLAIM', stream, group, consumer, String(claimAfterMs), cursor] as const),
        ...['COUNT', String(batchSize)],
      )
      const [next, entries] = reply as readonly [unknown, unknown]
      await store(entriesOf(entries), reading)
      cursor = String(next)
      if (cursor === '0-0') return
    }
  }

  function readCommand(after: string, ...block: readonly string[]): readonly [string, ...string[]] {
    return [
      ...(['XREADGROUP', 'GROUP', group, consumer, 'COUNT', String(batchSize)] as const),
      ...[...block, 'STREAMS', stream, after],
    ]
  }

  async function read(reading: Reading): Promise<void> {
    await makeGroup()
    await readOwn(reading)
    let claimedAt = -Infinity
    while (!reading.signal.aborted) {
      if (performance.now() - claimedAt > claimEveryMs) {
        await claim(reading)
        claimedAt = performance.now()
      }
      const [command, ...parameters] = readCommand('>', 'BLOCK', String(blockMs))
      await store(entriesOfReply(await call(command, ...parameters)), reading)
    }
  }

  return createReadingSource({ name: 'redis', read, check: async () => call('XLEN', stream) })
}

function nameOption(option: string, given: unknown): string {
  if (typeof given === 'string' && given !== '' && Buffer.byteLength(given) <= 1024) return given
  throw invalidOption(`Expected \`${option}\` to have 1 to 1,024 bytes, got ${describe(given)}`, option)
}

/** Of one stream: a list of pairs, or with version 3 of the protocol a map, which ioredis gives as a list of names and values. */
function entriesOfReply(reply: unknown): readonly Entry[] {
  if (reply === null || typeof reply !== 'object') return []
  if (reply instanceof Map) return [...(reply as ReadonlyMap<unknown, unknown>).values()].flatMap(entriesOf)
  if (!Array.isArray(reply)) return Object.values(reply).flatMap(entriesOf)
  const list = reply as readonly unknown[]
  if (!Array.isArray(list[0])) return entriesOf(list[1])
  return (list as readonly (readonly [unknown, unknown])[]).flatMap(([, entries]) => entriesOf(entries))
}

function entriesOf(given: unknown): readonly Entry[] {
  if (!Array.isArray(given)) return []
  return (given as readonly (readonly [unknown, unknown] | null)[]).flatMap((entry): readonly Entry[] => {
    // Deleted, and still pending.
    if (entry === null || !Array.isArray(entry[1])) return entry === null ? [] : [emptyEntry(entry[0])]
    const texts = entry[1].map(String)
    const pairs = texts.flatMap((text, n) => (n % 2 === 0 ? [[text, texts[n + 1] ?? ''] as const] : []))
    return [{ id: String(entry[0]), fields: Object.fromEntries(pairs) }]
  })
}

/** An entry that was cut off the stream before it was read: it goes into the quarantine. */
const emptyEntry = (id: unknown): Entry => ({ id: String(id), fields: {} })

function toMessage({ id, fields }: Entry, stream: string): ReceivedMessage {
  const { event, payload, ...others } = fields
  const body = event ?? payload ?? JSON.stringify(fields)
  return {
    id: `${stream}:${id}`,
    body: Buffer.from(body),
    headers: Object.fromEntries(Object.entries(others).map(([name, value]) => [name.toLowerCase(), value])),
    contentType: event === undefined ? 'application/json' : 'application/cloudevents+json',
    key: undefined,
    from: stream,
    protocol: undefined,
  }
}
