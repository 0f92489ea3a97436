import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { CrashInstance } from './crash-instance.ts'
import type { CrashAnswer, CrashOrder } from './crash-process.ts'

/** The program next to this file, as source or as built. */
function programFile(): string {
  const extension = import.meta.url.endsWith('.ts') ? '.ts' : '.js'
  return fileURLToPath(new URL(`./crash-process${extension}`, import.meta.url))
}

/** Starts a process that runs the subscription of a module, and kills itself with SIGKILL at its step. */
export async function startProcess(url: string, source: string, module: URL): Promise<CrashInstance> {
  const child = fork(programFile(), { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const exited = once(child, 'exit')
  let isOver = false
  void exited.then(() => (isOver = true))

  async function tell(order: CrashOrder): Promise<CrashAnswer> {
    const answered = once(child, 'message') as Promise<[CrashAnswer]>
    // If the process has died, `ended` reports it.
    child.send(order, () => {})
    const ended = exited.then((): [CrashAnswer] => [
      { error: `The process ended with ${String(child.signalCode ?? child.exitCode)}` },
    ])
    const [answer] = await Promise.race([answered, ended])
    if ('error' in answer) throw new Error(`In the process of ${module.href}: ${answer.error}`)
    return answer
  }

  try {
    await tell({ order: 'start', url, source, module: module.href })
  } catch (error) {
    child.kill('SIGKILL')
    throw error
  }
  return {
    arm: async (step) => void (await tell({ order: 'arm', step })),
    async trail() {
      const answer = await tell({ order: 'trail' })
      return 'trail' in answer ? answer.trail : []
    },
    died: exited.then(() => {}),
    get isDead() {
      return isOver
    },
    async end() {
      if (isOver) return
      await tell({ order: 'end' }).catch(() => child.kill('SIGKILL'))
      await exited
    },
  }
}
