import { messageHeaders, type ReceivedMessage } from '../receiving/source.ts'

/** What to read. */
export interface ReadOptions {
  readonly topics: readonly string[]
  readonly startAt: 'earliest' | 'latest'
  readonly batchSize: number
}

export type StoreMessages = (messages: readonly ReceivedMessage[]) => Promise<void>
export type ReportFailure = (error: unknown) => void

/** A member of a consumer group. */
export interface KafkaGroup {
  /** Hears what the client says by itself, until the function that it returns is called. */
  readonly watch: (report: ReportFailure) => () => void
  /**
   * Joins, and stores messages in batches: after each, its offsets are committed. Resolves when the signal is aborted, after the batch
   * that is being stored. Rejects when the client has given up: call it again.
   */
  readonly read: (store: StoreMessages, signal: AbortSignal, report: ReportFailure) => Promise<void>
  /** Others get its partitions at once. */
  readonly leave: () => Promise<void>
  readonly check: () => Promise<void>
}

/** A message of either client. */
export interface ClientMessage {
  readonly topic: string
  readonly partition: number
  readonly offset: bigint | string
  readonly key: Buffer | null | undefined
  readonly value: Buffer | null | undefined
  readonly headers?: ReadonlyMap<unknown, unknown> | Readonly<Record<string, unknown>> | undefined
}

/** With its place as its id. */
export function toMessage({
  topic,
  partition,
  offset,
  key,
  value,
  headers = {},
}: ClientMessage): ReceivedMessage {
  const entries = headers instanceof Map ? headers : Object.entries(headers)
  const { 'content-type': contentType, ...others } = messageHeaders(
    entries as Iterable<readonly [unknown, unknown]>,
  )
  return {
    id: `${topic}/${partition}/${offset}`,
    body: value ?? Buffer.alloc(0),
    headers: others,
    contentType,
    key: key?.toString('utf8'),
    from: topic,
    protocol: 'kafka',
  }
}
