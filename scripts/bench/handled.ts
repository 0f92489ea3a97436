import { monotonicMs, waitUntil } from './contestant.ts'

/** One event handled by one subscriber. */
export interface Handled {
  readonly number: number
  readonly subscriber: number
  /** By the clock that all processes share. */
  readonly atMs: number
}

/** What a process that handles events reports. */
export interface HandledLog {
  readonly add: (number: number, subscriber: number) => void
  /** The methods that a program provides. */
  readonly methods: {
    readonly handledCount: () => number
    /** Resolves when this many events are handled, to the times of the first and the last of them. */
    readonly waitHandled: (task: { count: number }) => Promise<{ firstMs: number; lastMs: number }>
    /** Returns all events since the last call. */
    readonly takeHandled: () => readonly Handled[]
  }
}

/** Counts handled events. Their times are recorded only if `keep` is set, because that takes memory and time. */
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
