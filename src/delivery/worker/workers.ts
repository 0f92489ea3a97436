import type { Database } from '../../database/database.ts'
import type { EventReader } from '../attempts/event-reader.ts'
import { readStates, type SubscriptionState } from '../flow-control/subscription-state.ts'
import type { LocalWorkers } from '../routing/local-workers.ts'
import type { Worker } from './worker-dependencies.ts'

/** The workers of this process, by the id of their subscription. */
export class Workers implements LocalWorkers {
  readonly #workers = new Map<number, Worker>()
  readonly #database: Database
  readonly #events: EventReader

  constructor(database: Database, events: EventReader) {
    this.#database = database
    this.#events = events
  }

  add(worker: Worker): void {
    this.#workers.set(worker.subscriptionId, worker)
  }

  get subscriptionIds(): Iterable<number> {
    return this.#workers.keys()
  }

  get inFlightCount(): number {
    return this.#sum(({ inFlightCount }) => inFlightCount)
  }

  get overrunCount(): number {
    return this.#sum(({ overruns }) => overruns.count)
  }

  isFree: LocalWorkers['isFree'] = (id, types, declarations) =>
    this.#workers.get(id)?.isFree(types, declarations) ?? false

  wake: LocalWorkers['wake'] = (id) => this.#workers.get(id)?.wake()

  wakeAll(): void {
    for (const worker of this.#workers.values()) worker.wake()
  }

  adopt: LocalWorkers['adopt'] = (id, jobs, fetchedAt) => this.#workers.get(id)?.adopt(jobs, fetchedAt)

  prefetch: LocalWorkers['prefetch'] = (ids) => this.#events.prefetch(ids)

  /** Applies the current states of subscriptions. If the database is down, maintenance applies them later. */
  async followStates(ids: Iterable<number> = this.subscriptionIds): Promise<void> {
    const ours = [...ids].filter((id) => this.#workers.has(id))
    const readAt = performance.now()
    const states = await readStates(this.#database, ours).catch(() => new Map<number, SubscriptionState>())
    for (const [id, state] of states) this.#workers.get(id)?.applyState(state, readAt)
  }

  async stop(graceMs: number, relayStopped: Promise<void>): Promise<void> {
    await Promise.all([...this.#workers.values()].map(async (worker) => worker.stop(graceMs, relayStopped)))
  }

  #sum(count: (worker: Worker) => number): number {
    return [...this.#workers.values()].reduce((sum, worker) => sum + count(worker), 0)
  }
}
