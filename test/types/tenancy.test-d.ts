import { expectTypeOf, test } from 'vitest'
import type { Bus, HistoryEvent } from '../../src/index.ts'
import { deliveries, events } from '../../src/schema.ts'
import type { paymentEvents } from '../support/catalogue.ts'

declare const bus: Bus<typeof paymentEvents>

test('what is found has the type that was asked for, and a payload that is not known', async () => {
  const found = await bus.tenant('acme').events.find({ type: 'payment.paid' })
  expectTypeOf(found).toEqualTypeOf<HistoryEvent<'payment.paid'>[]>()
  expectTypeOf(found[0]?.payload).toBeUnknown()
  const either = await bus.events.find({ type: ['payment.paid', 'note'] })
  expectTypeOf(either[0]?.type).toEqualTypeOf<'payment.paid' | 'note' | undefined>()
  // The log may hold what this catalogue does not know.
  const gone = await bus.events.find({ type: 'gone.by', tenantId: 'acme' })
  expectTypeOf(gone[0]?.type).toEqualTypeOf<'gone.by' | undefined>()
  expectTypeOf((await bus.events.get('x'))?.type).toEqualTypeOf<string | undefined>()
})

test('a tenant cannot ask for another one', () => {
  type TenantFilter = NonNullable<Parameters<ReturnType<typeof bus.tenant>['events']['find']>[0]>
  type OperatorFilter = NonNullable<Parameters<typeof bus.events.find>[0]>
  expectTypeOf<TenantFilter>().not.toHaveProperty('tenantId')
  expectTypeOf<OperatorFilter>().toHaveProperty('tenantId')
})

test('a query gives what its work gives', () => {
  const rows = bus.tenant('acme').query(async (db) => db.select({ id: events.id }).from(events))
  expectTypeOf(rows).resolves.toEqualTypeOf<{ id: string }[]>()
  const counted = bus.tenant('acme').query(async (db) => db.$count(deliveries))
  expectTypeOf(counted).resolves.toBeNumber()
})
