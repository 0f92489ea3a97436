/** What every contestant of the throughput workload is asked to do. */
export interface ThroughputTask {
  /** A database with nothing but the schemas of the bus and of pg-boss. */
  readonly url: string
  readonly eventCount: number
  readonly subscriberCount: number
  /** Bytes of the payload as JSON, about. */
  readonly payloadBytes: number
}

/** Durable publish of all events to all subscribers, until the last one is handled and recorded as done. */
export interface ThroughputResult {
  /** From the first publish to the end of the last one. */
  readonly publishMs: number
  /** From the first publish until everything is handled and recorded. */
  readonly totalMs: number
}

/** Something people would use, tuned as its own docs advise. */
export interface Contestant {
  readonly name: string
  /** What it does differently, for the reader of the table. */
  readonly note: string
  readonly load: () => Promise<{
    /** @throws {@link NotAvailableError} where it cannot run here */
    readonly throughput: (task: ThroughputTask) => Promise<ThroughputResult>
  }>
}

/** Events published in one call, by every contestant. */
const publishBatchSize = 500

/** Publishers at a time, by every contestant. */
export const publisherCount = 2

interface BenchPayload {
  readonly number: number
  readonly note: string
}

/** A payload of about so many bytes. */
export function makePayload(number: number, payloadBytes: number): BenchPayload {
  return { number, note: 'x'.repeat(Math.max(0, payloadBytes - 30)) }
}

/** Calls `publish` for consecutive ranges until all events are published, a few at a time. */
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

/** Resolves when the condition holds, looking often enough not to count in the figure. */
export async function waitUntil(condition: () => boolean | Promise<boolean>, pollMs = 2): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, pollMs))
}

/** Milliseconds of a clock that all processes of a machine share. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6
}
