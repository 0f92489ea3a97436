// Schemas of valibot: what they take and what they give may differ, publish takes the one, handlers get the other.
import * as v from 'valibot'
import { createBus, defineEvents } from '../../src/index.ts'
import type { Environment } from './environment.ts'

const events = defineEvents({
  'customer.registered': {
    schema: v.object({
      email: v.pipe(v.string(), v.trim(), v.toLowerCase(), v.email()),
      locale: v.optional(v.picklist(['en', 'fr']), 'en'),
    }),
  },
})

export async function run({ url, db }: Environment): Promise<string> {
  const greeted = Promise.withResolvers<string>()
  const bus = createBus({ database: url, events, source: 'shop' })
  bus.subscribe({
    name: 'greet',
    events: ['customer.registered'],
    handler: ({ payload: { email, locale } }) => {
      const greeting: Record<typeof locale, string> = { en: 'Hello', fr: 'Bonjour' }
      greeted.resolve(`${greeting[locale]} ${email}`)
    },
  })
  await bus.start()
  await db.transaction(async (tx) =>
    bus.publish(tx, {
      type: 'customer.registered',
      tenantId: 'acme',
      payload: { email: ' Ada@Example.org ' },
    }),
  )
  const greeting = await greeted.promise
  await bus.stop()
  return greeting
}
