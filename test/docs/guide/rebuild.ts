import { and, asc, gt, inArray, isNull, sql } from 'drizzle-orm'
import type { PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core'
import { createBus } from '../../../src/index.ts'
import { cancellations, events as log, outbox } from '../../../src/schema.ts'
import { apply, copied, events, timelineSubscription, type Change } from './timeline.ts'

/** Step 1. From now on every event waits in the line of the new subscription. */
export async function registerPaused(url: string): Promise<void> {
  const bus = createBus({ database: url, events, source: 'orders' })
  bus.subscribe({
    ...timelineSubscription,
    // What comes before the pause is taken, not handled, and goes back to its place at the stop.
    handler: async (_event, { signal }) =>
      new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('registering')))),
  })
  await bus.start()
  await bus.subscriptions.pause(timelineSubscription.name, { by: 'rebuild', reason: 'history is copied' })
  await bus.stop({ graceMs: 0 })
}

/** Step 2. Applies what was handed over before, in publish order, as one moment shows it. */
export async function copyHistory(db: PgDatabase<PgQueryResultHKT>): Promise<void> {
  await db.transaction(
    async (tx) => {
      const pageSize = 1000
      let last = '00000000-0000-0000-0000-000000000000'
      for (let count = pageSize; count === pageSize;) {
        const page = await tx
          .select({ id: log.id, tenantId: log.tenantId, payload: log.payload })
          .from(log)
          .where(
            and(
              gt(log.id, last),
              inArray(log.type, [...timelineSubscription.events]),
              isNull(log.erasedAt),
              // Those that are not handed over yet come to the subscription.
              sql`not exists (select from ${outbox} where ${outbox.id} = ${log.id} and ${outbox.subscriptionId} is null)`,
              sql`not exists (select from ${cancellations} where ${cancellations.id} = ${log.id})`,
            ),
          )
          .orderBy(asc(log.id))
          .limit(pageSize)
        for (const event of page) await apply(tx, event as Change)
        if (page.length > 0) await tx.insert(copied).values(page.map(({ id }) => ({ id })))
        count = page.length
        last = page.at(-1)?.id ?? last
      }
    },
    { isolationLevel: 'repeatable read' },
  )
}
