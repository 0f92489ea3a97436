import { and, eq } from 'drizzle-orm'
import type { PostgresJsDatabase } from 'drizzle-orm/postgres-js'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { payments } from './schema.ts'

interface NewPayment {
  readonly tenantId: string
  readonly amountCents: number
  readonly currency: string
}

interface Verification {
  readonly tenantId: string
  readonly verifiedBy: string
  readonly method: string
}

/** Text without control characters and lone surrogates, which PostgreSQL cannot store. */
const line = { type: 'string', minLength: 1, maxLength: 255, pattern: '^[^\\p{Cc}\\p{Cs}]+$' } as const

const newPayment = {
  type: 'object',
  required: ['tenantId', 'amountCents', 'currency'],
  properties: {
    tenantId: line,
    amountCents: { type: 'integer', minimum: 1, maximum: Number.MAX_SAFE_INTEGER },
    currency: { type: 'string', pattern: '^[A-Z]{3}$' },
  },
} as const

const verification = {
  type: 'object',
  required: ['tenantId', 'verifiedBy', 'method'],
  properties: { tenantId: line, verifiedBy: line, method: line },
} as const

const uuid = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** `POST /payments` and `POST /payments/:id/verify`. */
export function addPaymentRoutes(app: FastifyInstance, db: PostgresJsDatabase): void {
  app.post<{ Body: NewPayment }>('/payments', { schema: { body: newPayment } }, async (request, reply) => {
    const { tenantId, amountCents, currency } = request.body
    const [payment] = await db
      .insert(payments)
      .values({ tenantId, amountCents, currency })
      .returning({ paymentId: payments.paymentId })
    return reply.code(201).send(payment)
  })

  app.post<{ Params: { id: string }; Body: Verification }>(
    '/payments/:id/verify',
    { schema: { body: verification } },
    async (request, reply) => {
      const paymentId = request.params.id.toLowerCase()
      const eventId = uuid.test(paymentId)
        ? await verify(db, request.bus, paymentId, request.body)
        : undefined
      if (eventId === undefined) {
        return reply.code(404).send({ statusCode: 404, error: 'Not Found', message: 'No such payment' })
      }
      return { paymentId, status: 'VERIFIED_PAID', eventId }
    },
  )
}

/**
 * Marks a payment as paid and publishes `payment.paid` in one transaction: both happen, or neither. Repeating it
 * changes nothing.
 *
 * @returns the id of the event, or undefined if the tenant has no such payment
 */
async function verify(
  db: PostgresJsDatabase,
  bus: FastifyRequest['bus'],
  paymentId: string,
  { tenantId, verifiedBy, method }: Verification,
): Promise<string | undefined> {
  return db.transaction(async (tx) => {
    const [payment] = await tx
      .select()
      .from(payments)
      .where(and(eq(payments.paymentId, paymentId), eq(payments.tenantId, tenantId)))
      .for('update')
    if (payment === undefined) return undefined
    if (payment.eventId !== null) return payment.eventId
    const { amountCents, currency } = payment
    const { id: eventId } = await bus.publish(tx, {
      type: 'payment.paid',
      tenantId,
      payload: { paymentId, amountCents, currency, verifiedBy, method },
      idempotencyKey: `payment-paid-${paymentId}`,
    })
    await tx
      .update(payments)
      .set({ status: 'VERIFIED_PAID', verifiedBy, method, eventId })
      .where(eq(payments.paymentId, paymentId))
    return eventId
  })
}
