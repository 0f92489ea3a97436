import { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import type { BusOptions } from '../bus-options.ts'
import { createBus, type Bus } from '../bus.ts'
import type { EventCatalogue } from '../events/catalogue.ts'
import { withFaultHook, type FaultPoint } from '../foundation/fault-points.ts'
import type { BusLogger } from '../foundation/logger.ts'
import type { DrizzleOption, HandlerTransaction } from '../database/drizzle-handle.ts'

/** A place to crash at: a fault point, the n-th time since the instance was told. */
export interface CrashStep {
  readonly point: FaultPoint
  /** 1 for the first time. */
  readonly occurrence: number
}

/** A bus with the subscription that can be made to die at a step. */
export interface CrashInstance {
  /** From now on it notes the steps it comes by, and dies at this one, if any is given. */
  readonly arm: (step: CrashStep | undefined) => Promise<void>
  /** The steps it came by since. */
  readonly trail: () => Promise<readonly CrashStep[]>
  /** Resolves when it has died. */
  readonly died: Promise<void>
  readonly isDead: boolean
  /** Ends it, dead or alive. */
  readonly end: () => Promise<void>
}

/** Counts the steps an instance comes by. */
export class StepCounter {
  #target: CrashStep | undefined
  #trail: CrashStep[] = []

  arm(step: CrashStep | undefined): void {
    this.#target = step
    this.#trail = []
  }

  get trail(): readonly CrashStep[] {
    return this.#trail
  }

  /** Whether this is where to die. */
  pass(point: FaultPoint): boolean {
    const occurrence = this.#trail.filter((step) => step.point === point).length + 1
    this.#trail.push({ point, occurrence })
    return this.#target?.point === point && this.#target.occurrence === occurrence
  }
}

export const silentLogger: BusLogger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

/** How long the remains of a dead instance may take to be cleared away. */
const burialMs = 1000

/**
 * Starts a bus in this process whose death is played: at its step it stops for good, its sockets are destroyed, so that the
 * server ends what was open as it does when a process dies, no new connection is made, and whatever else of it comes by a step stops too.
 */
export async function startInProcess<C extends EventCatalogue, D extends DrizzleOption>(
  url: string,
  options: Pick<BusOptions<C, D>, 'events' | 'source' | 'drizzle'>,
  subscribe: (bus: Bus<C, HandlerTransaction<D>>) => void,
): Promise<CrashInstance> {
  const counter = new StepCounter()
  const sockets = new Set<Socket>()
  const frozen: (() => void)[] = []
  const { promise: died, resolve: reportDeath } = Promise.withResolvers<void>()
  let isDead = false
  let isBuried = false

  function onFaultPoint(point: FaultPoint): Promise<void> | undefined {
    if (!isDead) {
      if (!counter.pass(point)) return undefined
      isDead = true
      for (const socket of sockets) socket.destroy()
      reportDeath()
    }
    // It is only to come to its end now.
    if (isBuried && point.startsWith('stop.')) return undefined
    return new Promise((_, reject) => {
      // What the handler itself waits for stays as it is: it must not go on, not even with an error.
      if (isOfHandler(point)) return
      const fail = (): void => reject(new Error('the instance is dead'))
      if (isBuried) fail()
      else frozen.push(fail)
    })
  }

  function stream(): Duplex {
    if (isDead) return new DeadStream()
    const socket = new Socket()
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    return socket
  }

  const bus = withFaultHook(onFaultPoint, () =>
    createBus<C, D>({ ...options, database: { connectionString: url, stream }, logger: silentLogger }),
  )
  subscribe(bus)
  await bus.start()
  return {
    arm: async (step) => counter.arm(step),
    // A copy: it goes on to grow.
    trail: async () => [...counter.trail],
    died,
    get isDead() {
      return isDead
    },
    async end() {
      if (!isDead) return bus.stop({ graceMs: 1000 })
      isBuried = true
      for (const unfreeze of frozen.splice(0)) unfreeze()
      let timer: NodeJS.Timeout | undefined
      const tooLong = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, burialMs)
      })
      await Promise.race([bus.stop({ graceMs: 0 }).catch(() => {}), tooLong])
      clearTimeout(timer)
    },
  }
}

function isOfHandler(point: FaultPoint): boolean {
  return point.startsWith('publish.')
}

/** A connection that nobody answers: what a dead process opens. */
class DeadStream extends Duplex {
  connect(): this {
    queueMicrotask(() => this.destroy(new Error('the instance is dead')))
    return this
  }

  setNoDelay(): this {
    return this
  }

  setKeepAlive(): this {
    return this
  }

  ref(): this {
    return this
  }

  unref(): this {
    return this
  }

  override _read(): void {}

  override _write(_chunk: unknown, _encoding: string, callback: (error?: Error | null) => void): void {
    callback(new Error('the instance is dead'))
  }
}
