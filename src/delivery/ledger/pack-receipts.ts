import { lowestId } from '../../events/event-id.ts'
import { canary } from '../../events/event-type.ts'
import type { Database } from '../../database/database.ts'

/** Receipts that one statement looks at. */
const sliceSize = 5000

/** Between two slices, so that the deliveries of the service come first. */
const pauseMs = 20

/** The second pass and later ones begin so long before the one before them: a receipt is packed ten minutes after it was written. */
const overlapMs = 60 * 60_000

/**
 * Returns a function that packs the receipts of at-least-once subscriptions that have rows of their own: those of earlier versions, and those
 * that came one by one. The first call looks at all of them, later calls at those that are new. Many short transactions, so deliveries
 * are not delayed, and a crash loses nothing. Those of canaries are removed one by one, and stay as they are.
 */
export function createReceiptPacker(database: Pick<Database, 'query'>): () => Promise<number> {
  let lastPassAt: number | undefined
  return async () => {
    const from = lowestId(lastPassAt === undefined ? 0 : lastPassAt - overlapMs)
    lastPassAt = Date.now()
    const { rows: subscriptions } = await database.query<{ id: number }>(
      `select id from bus.subscriptions where options->>'mode' is distinct from 'exactly-once' and name <> $1 order by id`,
      [canary.subscription],
    )
    let packedCount = 0
    for (const { id } of subscriptions) packedCount += await packSubscription(database, id, from)
    return packedCount
  }
}

async function packSubscription(
  database: Pick<Database, 'query'>,
  subscriptionId: number,
  from: string,
): Promise<number> {
  let packedCount = 0
  let after = from
  for (;;) {
    const { rows } = await database.query<{ last_event: string | null; packed: string }>(
      'select last_event, packed from bus.pack_receipts($1, $2, $3)',
      [subscriptionId, after, sliceSize],
    )
    packedCount += Number(rows[0]?.packed ?? 0)
    const last = rows[0]?.last_event ?? undefined
    if (last === undefined) return packedCount
    after = last
    await new Promise((resolve) => setTimeout(resolve, pauseMs).unref())
  }
}
