import { fork, type ChildProcess } from 'node:child_process'
import { flushCompileCache } from 'node:module'
import { fileURLToPath } from 'node:url'
import { NotAvailableError } from './not-available.ts'

/** A program of the benchmark in a separate process: a fresh heap, and its own core if there is one. */
export interface Child {
  /** Calls one of the program's methods. @throws the method's error, or an error if the process ended */
  readonly call: <T>(method: string, argument?: unknown) => Promise<T>
  /** Ends the process. */
  readonly end: () => Promise<void>
}

interface Call {
  readonly id: number
  readonly method: string
  readonly argument: unknown
}

interface Answer {
  readonly id: number
  readonly result?: unknown
  readonly error?: string
  readonly notAvailable?: boolean
}

interface Waiting {
  readonly resolve: (result: unknown) => void
  readonly reject: (error: Error) => void
}

/** No call of a full run takes nearly this long. */
const callTimeoutMs = 600_000

const running = new Set<ChildProcess>()

/** Starts a program of `programs/`. Its output goes to standard error. */
export function startChild(program: string): Child {
  const child = fork(fileURLToPath(new URL(`programs/${program}`, import.meta.url)), {
    stdio: ['ignore', 2, 2, 'ipc'],
  })
  running.add(child)
  const waiting = new Map<number, Waiting>()
  let callCount = 0
  child.on('message', (message) => {
    const { id, result, error, notAvailable } = message as Answer
    const call = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) call?.resolve(result)
    else call?.reject(notAvailable === true ? new NotAvailableError(error) : new Error(error))
  })
  const ended = new Promise<void>((resolve) => {
    child.once('close', (code, signal) => {
      running.delete(child)
      for (const { reject } of waiting.values())
        reject(new Error(`${program} ended with ${String(code ?? signal)} while it was at work`))
      waiting.clear()
      resolve()
    })
  })
  child.once('error', () => {})

  return {
    async call<T>(method: string, argument?: unknown) {
      callCount += 1
      const id = callCount
      return new Promise<T>((resolve, reject) => {
        if (!child.connected) {
          reject(new Error(`${program} has ended`))
          return
        }
        const timer = setTimeout(() => {
          reject(new Error(`${program} did not answer \`${method}\` in ${callTimeoutMs / 1000} s`))
          child.kill('SIGKILL')
        }, callTimeoutMs)
        waiting.set(id, {
          resolve(result) {
            clearTimeout(timer)
            resolve(result as T)
          },
          reject(error) {
            clearTimeout(timer)
            reject(error)
          },
        })
        child.send({ id, method, argument } satisfies Call)
      })
    },
    async end() {
      child.kill('SIGKILL')
      await ended
    },
  }
}

/** Ends every running program. */
export function killChildren(): void {
  for (const child of running) child.kill('SIGKILL')
}

/** Runs in the program: answers calls until the benchmark ends it or has ended itself. */
export function serve(methods: Readonly<Record<string, (argument: never) => unknown>>): void {
  // Ctrl-C reaches the whole process group; the benchmark ends its programs itself.
  process.on('SIGINT', () => {})
  process.on('disconnect', () => process.exit(0))
  // With NODE_COMPILE_CACHE the next of its kind starts sooner. A program is killed in the end, and would not write it.
  flushCompileCache()
  process.on('message', (message) => {
    const { id, method, argument } = message as Call
    void (async () => {
      try {
        const found = methods[method]
        if (found === undefined) throw new Error(`no method ${method}`)
        answer({ id, result: await found(argument as never) })
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error)
        answer({ id, error: message, notAvailable: error instanceof NotAvailableError })
      }
    })()
  })
}

function answer(message: Answer): void {
  process.send?.(message)
}
