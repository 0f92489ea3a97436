/**
 * A subscription to be crashed in a process of its own, whose handler books a payment and publishes that it has. `?mode=` says in
 * which mode it runs.
 */
import { integer, pgTable, uuid } from 'drizzle-orm/pg-core'
import pg from 'pg'
import type { HandlerTransaction, NewEvent, StoredEvent } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'

export const events = paymentEvents

const entries = pgTable('entries', { eventId: uuid('event_id').notNull(), cents: integer().notNull() })

/** The table, for the option `prepare`. */
export const entriesSql = 'create table entries (event_id uuid not null, cents int not null)'

const refund = { type: 'payment.refunded', tenantId: 'acme', payload: { paymentId: '42' } } as const

type Payment = Pick<StoredEvent, 'id'> & { readonly payload: { readonly amountCents: number } }

interface Context {
  readonly publish: (event: NewEvent<typeof paymentEvents>) => Promise<unknown>
}

/** Effect and event in the transaction of the bus. */
export const bookedOnce = {
  name: 'ledger',
  events: ['payment.paid'],
  mode: 'exactly-once',
  async handler({ id, payload }: Payment, { tx, publish }: Context & { readonly tx: HandlerTransaction }) {
    await tx.insert(entries).values({ eventId: id, cents: payload.amountCents })
    await publish(refund)
  },
} as const

/** An effect that is made once by its own means, and an event that carries the id of its cause. */
export function bookedAtLeastOnce(url: string) {
  const pool = new pg.Pool({ connectionString: url, max: 2, allowExitOnIdle: true })
  pool.on('error', () => {})
  return {
    name: 'ledger',
    events: ['payment.paid'],
    async handler({ id, payload }: Payment, { publish }: Context) {
      await pool.query(
        `insert into entries select $1, $2 where not exists (select from entries where event_id = $1)`,
        [id, payload.amountCents],
      )
      await publish({ ...refund, eventId: `refund-of-${id}` })
    },
  } as const
}

export const subscription = ({ url }: { readonly url: string }) =>
  new URL(import.meta.url).searchParams.get('mode') === 'exactly-once' ? bookedOnce : bookedAtLeastOnce(url)
