/** The task of every contestant in the throughput workload. */
export interface ThroughputTask {
  /** A database with only the schemas of the bus and of pg-boss. */
  readonly url: string
  readonly eventCount: number
  readonly subscriberCount: number
  /** The approximate size of the payload as JSON, in bytes. */
  readonly payloadBytes: number
}

/** The durable publishing of all events to all subscribers, until the last one is handled and recorded as done. */
export interface ThroughputResult {
  /** From the first publish until the last one returns. */
  readonly publishMs: number
  /** From the first publish until everything is handled and recorded. */
  readonly totalMs: number
}

/** A product that people would use, tuned as its documentation recommends. */
export interface Contestant {
  readonly name: string
  /** What it does differently, for the reader of the table. */
  readonly note: string
  readonly load: () => Promise<{
    /** @throws {@link NotAvailableError} if it cannot run here */
    readonly throughput: (task: ThroughputTask) => Promise<ThroughputResult>
  }>
}

/** The number of events that every contestant publishes in one call. */
const publishBatchSize = 500

/** The number of concurrent publishers of every contestant. */
export const publisherCount = 2

interface BenchPayload {
  readonly number: number
  readonly note: string
}

/** A payload of about this many bytes. */
export function makePayload(number: number, payloadBytes: number): BenchPayload {
  return { number, note: 'x'.repeat(Math.max(0, payloadBytes - 30)) }
}

/** Calls `publish` for consecutive ranges until all events are published, with limited concurrency. */
export async function publishInBatches(
  eventCount: number,
  publish: (from: number, to: number) => Promise<void>,
  atATime = publisherCount,
): Promise<void> {
  let next = 0
  async function publisher(): Promise<void> {
    while (next < eventCount) {
      const from = next
      next = Math.min(eventCount, from + publishBatchSize)
      await publish(from, next)
    }
  }
  await Promise.all(Array.from({ length: atATime }, publisher))
}

/** Resolves when the condition holds. It polls often enough not to affect the figure. */
export async function waitUntil(condition: () => boolean | Promise<boolean>, pollMs = 2): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, pollMs))
}

/** Milliseconds of a clock that all processes of a machine share. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6
}
