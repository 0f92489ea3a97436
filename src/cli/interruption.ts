/** What ends a command from outside: signals, and Ctrl-C as a key. */
export interface Interruption {
  /** Aborted by the first one. From the first call on, they no longer end the process by themselves. */
  readonly interruption: () => AbortSignal
  /** Aborts it, also for a command that asks for it later. A command that does not ask goes on. */
  readonly end: () => void
  /** Hears the keys that a person types, one by one, until the returned function is called. */
  readonly hearKeys: (listener: (key: string) => void) => () => void
}

/** Another one so soon after the first is the same: npm and shells deliver Ctrl-C twice. */
const repeatMs = 500

/** The exit code of shells for Ctrl-C. */
const exitCode = 130

export function createInterruption(): Interruption {
  const controller = new AbortController()
  let isHeard = false
  let firstAt: number | undefined

  function interrupt(): void {
    if (!isHeard) process.exit(exitCode)
    if (firstAt === undefined) {
      firstAt = performance.now()
      controller.abort()
    } else if (performance.now() - firstAt > repeatMs) process.exit(exitCode)
  }

  return {
    interruption() {
      if (!isHeard) for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, interrupt)
      isHeard = true
      return controller.signal
    },
    end: () => controller.abort(),
    hearKeys(listener) {
      const { stdin } = process
      const hear = (text: string): void => {
        for (const key of text) {
          // A terminal in raw mode sends no signal.
          if (key === '\u{3}') interrupt()
          else listener(key)
        }
      }
      stdin.setRawMode(true)
      stdin.setEncoding('utf8').on('data', hear).resume()
      return () => {
        stdin.off('data', hear).pause()
        stdin.setRawMode(false)
      }
    },
  }
}
