import { setTimeout as pause } from 'node:timers/promises'
import { failureDelayMs } from '../../foundation/retry-delay.ts'
import { boundedCall } from '../sending/bounded-call.ts'
import { repeatUntilStored, type ReceivedMessage, type Source, type SourceContext } from './source.ts'

/** What a source of {@link createReadingSource} reads with. */
export interface Reading {
  /** Stores messages, again and again until it succeeds. @throws when the source stops before */
  readonly store: (messages: readonly ReceivedMessage[]) => Promise<void>
  /** Aborted when the source stops. */
  readonly signal: AbortSignal
  readonly reportFailure: SourceContext['reportFailure']
}

/** The parts of {@link createReadingSource}. */
export interface ReadingSourceParts {
  readonly name: string
  /** Reads until the signal is aborted. Called again, with a growing delay, when it ends or fails before. */
  readonly read: (reading: Reading) => Promise<void>
  readonly check: () => Promise<unknown>
}

/** A check takes no longer. */
const checkMs = 30_000

/** A source that reads in a loop. */
export function createReadingSource({ name, read, check }: ReadingSourceParts): Source {
  const stopping = new AbortController()
  let running: Promise<void> | undefined

  async function run(receive: Parameters<Source['start']>[0], context: SourceContext): Promise<void> {
    const { signal } = stopping
    let failures = 0

    /** A call that has begun is not given up when the source stops, and is not repeated then. */
    async function store(messages: readonly ReceivedMessage[]): Promise<void> {
      const begun: typeof receive = async (given) => receive(given, { signal: context.signal })
      await repeatUntilStored(begun, messages, { signal }, context)
      failures = 0
    }

    while (!signal.aborted) {
      try {
        await read({ store, signal, reportFailure: context.reportFailure })
      } catch (error) {
        if (!signal.aborted) context.reportFailure(error)
      }
      await pause(failureDelayMs(failures), undefined, { signal }).catch(() => {})
      failures += 1
    }
  }

  return {
    name,
    async start(receive, context) {
      running ??= run(receive, context)
    },
    async stop() {
      stopping.abort(new Error('the source was stopped'))
      await running
    },
    async check({ signal }) {
      signal.throwIfAborted()
      await boundedCall(check(), { signal, timeoutMs: checkMs })
    },
  }
}
