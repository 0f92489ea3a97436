import { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import type { BusOptions } from '../bus-options.ts'
import { createBus, type Bus } from '../bus.ts'
import type { EventCatalogue } from '../events/catalogue.ts'
import { withFaultHook, type FaultPoint } from '../foundation/fault-points.ts'
import type { BusLogger } from '../foundation/logger.ts'
import { withTimeout } from '../foundation/with-timeout.ts'
import type { DrizzleOption, HandlerTransaction } from '../database/drizzle-handle.ts'

/** A step to crash at: a fault point, and its occurrence since the instance was armed. */
export interface CrashStep {
  readonly point: FaultPoint
  /** 1 for the first occurrence. */
  readonly occurrence: number
}

/** A bus with the subscription that can be killed at a step. */
export interface CrashInstance {
  /** From now on it records the steps it passes, and dies at this one if given. */
  readonly arm: (step: CrashStep | undefined) => Promise<void>
  /** The steps it has passed since then. */
  readonly trail: () => Promise<readonly CrashStep[]>
  /** Resolves when it has died. */
  readonly died: Promise<void>
  readonly isDead: boolean
  /** Ends it, dead or alive. */
  readonly end: () => Promise<void>
}

/** Counts the steps that an instance passes. */
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

  /** Whether the instance dies at this step. */
  pass(point: FaultPoint): boolean {
    const occurrence = this.#trail.filter((step) => step.point === point).length + 1
    this.#trail.push({ point, occurrence })
    return this.#target?.point === point && this.#target.occurrence === occurrence
  }
}

export const silentLogger: BusLogger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

/** Time limit for closing the resources of a dead instance. */
const closeLimitMs = 1000

/**
 * Starts a bus in this process whose crash is simulated. At its step it stops for good. Its sockets are destroyed, so
 * that the server ends open transactions as it does when a process dies. It opens no new connection, and any other part
 * of it that reaches a step stops too.
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
  let isClosing = false

  function onFaultPoint(point: FaultPoint): Promise<void> | undefined {
    if (!isDead) {
      if (!counter.pass(point)) return undefined
      isDead = true
      for (const socket of sockets) socket.destroy()
      reportDeath()
    }
    // It must only end now.
    if (isClosing && point.startsWith('stop.')) return undefined
    return new Promise((_, reject) => {
      // An operation that the handler itself awaits stays pending: it must not continue, not even with an error.
      if (isOfHandler(point)) return
      const fail = (): void => reject(new Error('the instance is dead'))
      if (isClosing) fail()
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
    // A copy, because the original keeps growing.
    trail: async () => [...counter.trail],
    died,
    get isDead() {
      return isDead
    },
    async end() {
      if (!isDead) return bus.stop({ graceMs: 1000 })
      isClosing = true
      for (const unfreeze of frozen.splice(0)) unfreeze()
      const stopped = bus.stop({ graceMs: 0 }).catch(() => {})
      await withTimeout(stopped, closeLimitMs, () => {})
    },
  }
}

function isOfHandler(point: FaultPoint): boolean {
  return point.startsWith('publish.')
}

/** A connection that never answers: what a dead process opens. */
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
