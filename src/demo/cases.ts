import { setTimeout as delay } from 'node:timers/promises'
import { eq } from 'drizzle-orm'
import type { PostgresJsDatabase } from 'drizzle-orm/postgres-js'
import type { FastifyInstance } from 'fastify'
import { cases } from './schema.ts'

/** Options for trying the service out. */
export interface CaseOptions {
  /** How long the handler waits before it opens a case, in milliseconds. @defaultValue `0` */
  readonly caseDelayMs?: number | undefined
  /** Called when this process has opened a case, or has found it open already. */
  readonly onCaseOpened?: ((paymentId: string) => void) | undefined
}

/** Opens a case for each paid payment. Delivery is at least once; the unique payment id makes it exactly one case. */
export function openCases(
  bus: FastifyInstance['bus'],
  db: PostgresJsDatabase,
  { caseDelayMs = 0, onCaseOpened }: CaseOptions,
): void {
  bus.subscribe({
    name: 'open-case',
    events: ['payment.paid'],
    handler: async (event, { signal }) => {
      const { paymentId } = event.payload
      if (caseDelayMs > 0) {
        console.log(`The case of payment ${paymentId} opens in ${caseDelayMs} ms`)
        await delay(caseDelayMs, undefined, { signal })
      }
      await db.insert(cases).values({ paymentId, tenantId: event.tenantId }).onConflictDoNothing()
      onCaseOpened?.(paymentId)
    },
  })
}

const caseQuery = {
  type: 'object',
  required: ['paymentId'],
  properties: { paymentId: { type: 'string', format: 'uuid' } },
} as const

/** `GET /cases?paymentId=`. */
export function addCaseRoutes(app: FastifyInstance, db: PostgresJsDatabase): void {
  app.get<{ Querystring: { paymentId: string } }>(
    '/cases',
    { schema: { querystring: caseQuery } },
    async (request) =>
      db
        .select({ caseId: cases.caseId, paymentId: cases.paymentId, tenantId: cases.tenantId })
        .from(cases)
        .where(eq(cases.paymentId, request.query.paymentId)),
  )
}
