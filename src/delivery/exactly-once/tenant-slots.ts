import type { TenantLimit } from '../in-flight/tenant-limit.ts'
import type { JobInTransactions } from './job-in-transactions.ts'

/** An event that a transaction has taken, to run it. */
export interface TakenEvent {
  readonly eventId: string
  /** Whose slot it takes, where the subscription has a limit for each tenant. */
  readonly tenantId: string | undefined
}

/** The slot of a tenant that one transaction holds: that of the event that runs in it. */
export class TenantSlots {
  readonly #limit: TenantLimit | undefined
  #heldTenantId: string | undefined

  constructor(limit: TenantLimit | undefined) {
    this.#limit = limit
  }

  /** Takes the first event whose tenant is not at its limit; of the tenant whose slot is held already, any. */
  take({ job }: JobInTransactions, eventIds: string[]): TakenEvent | undefined {
    const limit = this.#limit
    if (limit === undefined) {
      const eventId = eventIds.shift()
      return eventId === undefined ? undefined : { eventId, tenantId: undefined }
    }
    for (const [index, eventId] of eventIds.entries()) {
      const tenantId = job.events.tenantOf(eventId)
      if (tenantId !== undefined && tenantId !== this.#heldTenantId && !limit.tryAcquire(tenantId)) {
        // Those of a key wait for its first one.
        if (job.isOfKey) break
        continue
      }
      eventIds.splice(index, 1)
      return { eventId, tenantId }
    }
    return undefined
  }

  /** Takes an event of a tenant whose slot was acquired. Releases the slot where there is none to start. */
  takeOf(tenantId: string, { job }: JobInTransactions, eventIds: string[]): TakenEvent | undefined {
    const index = eventIds.findIndex((id) => job.events.tenantOf(id) === tenantId)
    const [eventId] = index === -1 || !job.mayStart ? [] : eventIds.splice(index, 1)
    if (eventId !== undefined) return { eventId, tenantId }
    this.#limit?.release(tenantId)
    return undefined
  }

  /** The event starts: from now on the slot of its tenant is held, and no other. */
  hold({ tenantId }: TakenEvent): void {
    if (tenantId === this.#heldTenantId) return
    this.release()
    this.#heldTenantId = tenantId
  }

  /** An event that was taken does not start. */
  putBack({ tenantId }: TakenEvent): void {
    if (tenantId !== undefined && tenantId !== this.#heldTenantId) this.#limit?.release(tenantId)
  }

  release(): void {
    if (this.#heldTenantId !== undefined) this.#limit?.release(this.#heldTenantId)
    this.#heldTenantId = undefined
  }
}
