import { monotonicMs, waitUntil } from './contestant.ts'

/** One event handled by one subscriber. */
export interface Handled {
  readonly number: number
  readonly subscriber: number
  /** On the clock that all processes share. */
  readonly atMs: number
}

/** What a process that handles events tells of it. */
export interface HandledLog {
  readonly add: (number: number, subscriber: number) => void
  /** The methods a program offers. */
  readonly methods: {
    readonly handledCount: () => number
    /** Resolves when so many are handled. To the time of the first, and of the one that made it so many. */
    readonly waitHandled: (task: { count: number }) => Promise<{ firstMs: number; lastMs: number }>
    /** All since the last call. */
    readonly takeHandled: () => readonly Handled[]
  }
}

/** Counts what is handled. What was handled when is kept only where `keep` says so: it takes memory and time. */
export function createHandledLog(keep: boolean): HandledLog {
  let count = 0
  let firstMs = Number.NaN
  let awaited = Number.POSITIVE_INFINITY
  let lastMs = Number.NaN
  let handled: Handled[] = []
  return {
    add(number, subscriber) {
      count += 1
      if (count === 1) firstMs = monotonicMs()
      if (count === awaited) lastMs = monotonicMs()
      if (keep) handled.push({ number, subscriber, atMs: monotonicMs() })
    },
    methods: {
      handledCount: () => count,
      async waitHandled(task) {
        awaited = task.count
        if (count >= awaited) lastMs = monotonicMs()
        await waitUntil(() => count >= awaited)
        return { firstMs, lastMs }
      },
      takeHandled() {
        const taken = handled
        handled = []
        return taken
      },
    },
  }
}
