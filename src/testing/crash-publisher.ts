import { createBus, type Bus } from '../bus.ts'
import type { EventCatalogue } from '../events/catalogue.ts'
import type { NewEvent } from '../events/envelope.ts'
import { silentLogger } from './crash-instance.ts'
import { withTestMethods, type TestBus } from './test-bus.ts'
import type { TestDatabase } from './test-database.ts'

export interface Publisher<C extends EventCatalogue> {
  readonly bus: TestBus<C>
  readonly publish: (event: NewEvent<C>) => Promise<void>
}

/** A bus that only publishes, and observes the delivery. */
export function createPublisher<C extends EventCatalogue>(
  database: TestDatabase,
  events: C,
  source: string,
): Publisher<C> {
  let reason: unknown
  const logger = {
    ...silentLogger,
    error: (fields: object) => (reason = (fields as { reason?: unknown }).reason),
  }
  const plain: Bus<C> = createBus<C>({ database: database.url, events, source, logger })
  const bus = withTestMethods(plain, database, true)
  return {
    bus,
    async publish(event) {
      const published = await bus.tryPublish(event)
      if (published === undefined) throw new Error(`The event could not be published: ${String(reason)}`)
      if (published.duplicate)
        throw new Error(
          'The event is a duplicate of the previous one: pass a function (run) => event that creates a new eventId or idempotencyKey',
        )
    },
  }
}
