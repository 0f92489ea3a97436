// The balance of an account depends on the order of its bookings: they come one at a time, other accounts meanwhile.
import { z } from 'zod'
import { createBus, defineEvents, defineSubscription } from '../../src/index.ts'
import type { Environment } from './environment.ts'

const events = defineEvents({
  'account.booked': { schema: z.object({ account: z.string(), cents: z.number().int() }) },
})

const lines = new Map<string, number[]>()
const complete = Promise.withResolvers<void>()
let failedOnce = false

const ledger = defineSubscription(events, {
  name: 'ledger-lines',
  events: ['account.booked'],
  ordered: true,
  onKeyFailure: 'block',
  retry: { delaySeconds: 0 },
  handler: ({ payload: { account, cents } }) => {
    if (account === 'a' && cents === 2 && !failedOnce) {
      failedOnce = true
      throw new Error('tried again, before the next one of this account')
    }
    const line = lines.get(account) ?? []
    lines.set(account, [...line, cents])
    if ([...lines.values()].flat().length === 6) complete.resolve()
  },
})

export async function run({ url, db }: Environment) {
  const bus = createBus({ database: url, events, source: 'bank' })
  bus.subscribe(ledger)
  await bus.start()
  for (const cents of [1, 2, 3])
    await db.transaction(async (tx) =>
      bus.publishMany(
        tx,
        ['a', 'b'].map((account) => ({
          type: 'account.booked',
          tenantId: 'acme',
          orderingKey: account,
          payload: { account, cents },
        })),
      ),
    )
  await complete.promise
  const blocked = await bus.blockedKeys.list()
  await bus.stop()
  return { lines: Object.fromEntries(lines), failedOnce, blockedCount: blocked.length }
}
