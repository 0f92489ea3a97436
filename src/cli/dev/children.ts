import { spawn } from 'node:child_process'

/** A process that dev has started, with those that it has started itself. */
export interface Child {
  /** Resolves when it has ended, with its exit code; undefined if a signal ended it. */
  readonly ended: Promise<number | undefined>
  /** Asks it to end, and kills it if it has not after a time. */
  readonly stop: (graceMs: number) => Promise<void>
}

/** Starts a Node process in a group of its own, so that Ctrl-C reaches dev alone, which ends all in order. It writes where this one writes. */
export function startNode(
  args: readonly string[],
  {
    cwd,
    env,
    stdout,
  }: {
    readonly cwd: string
    readonly env: Readonly<Record<string, string | undefined>>
    /** Where its standard output goes. */
    readonly stdout: 'stdout' | 'stderr'
  },
): Child {
  const child = spawn(process.execPath, args, {
    cwd,
    env,
    detached: true,
    stdio: ['ignore', stdout === 'stdout' ? 1 : 2, 2],
  })
  let hasEnded = false
  const ended = new Promise<number | undefined>((resolve) => {
    child.once('error', () => resolve(1))
    child.once('exit', (code) => resolve(code ?? undefined))
  }).finally(() => {
    hasEnded = true
  })

  function signal(name: NodeJS.Signals): void {
    const { pid } = child
    if (pid === undefined) return
    try {
      // The group: `node --watch` has a child of its own.
      process.kill(-pid, name)
    } catch {
      // All of it has ended.
    }
  }

  // However this process ends.
  process.once('exit', () => signal('SIGKILL'))
  return {
    ended,
    async stop(graceMs) {
      if (!hasEnded) {
        signal('SIGTERM')
        let timer: NodeJS.Timeout | undefined
        const late = new Promise<void>((resolve) => {
          timer = setTimeout(resolve, graceMs)
        })
        await Promise.race([ended, late])
        clearTimeout(timer)
      }
      signal('SIGKILL')
    },
  }
}
