// Schemas of ArkType, and what a payload that does not fit is told.
import { type } from 'arktype'
import { createBus, defineEvents, InvalidEventError } from '../../src/index.ts'
import type { Environment } from './environment.ts'

const events = defineEvents({
  'stock.counted': { schema: type({ sku: 'string > 0', count: 'number.integer >= 0' }) },
})

export async function run({ url, db }: Environment) {
  const bus = createBus({ database: url, events, source: 'warehouse', defaults: { tenantId: 'acme' } })
  const count = async (sku: string, items: number) =>
    db
      .transaction(async (tx) => bus.publish(tx, { type: 'stock.counted', payload: { sku, count: items } }))
      .then(
        () => [],
        (error: unknown) => {
          if (error instanceof InvalidEventError) return error.issues.map(({ path }) => path)
          throw error
        },
      )
  const issues = [await count('chair', 4), await count('chair', -1)]
  const stored = await bus.events.find()
  await bus.stop()
  return { issues, stored: stored.map(({ payload }) => payload) }
}
