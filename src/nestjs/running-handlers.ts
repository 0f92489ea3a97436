/** Counts the running handlers of decorated methods. */
export interface RunningHandlers {
  /** Runs a handler, and counts it until it ends. */
  readonly run: (handle: () => unknown) => Promise<unknown>
  /** Resolves when none is running. */
  readonly settled: () => Promise<void>
}

export function createRunningHandlers(): RunningHandlers {
  let count = 0
  const waiting: (() => void)[] = []
  return {
    async run(handle) {
      count += 1
      try {
        return await handle()
      } finally {
        count -= 1
        if (count === 0) for (const resolve of waiting.splice(0)) resolve()
      }
    },
    async settled() {
      if (count > 0) await new Promise<void>((resolve) => waiting.push(resolve))
    },
  }
}
