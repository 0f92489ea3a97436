import { bigint, pgSchema, text, timestamp, uuid } from 'drizzle-orm/pg-core'
import type { Sql } from 'postgres'

const demo = pgSchema('demo')

/** Payments, paid or unpaid. */
export const payments = demo.table('payments', {
  paymentId: uuid('payment_id').primaryKey().defaultRandom(),
  tenantId: text('tenant_id').notNull(),
  amountCents: bigint('amount_cents', { mode: 'number' }).notNull(),
  currency: text('currency').notNull(),
  status: text('status', { enum: ['CREATED', 'VERIFIED_PAID'] })
    .notNull()
    .default('CREATED'),
  verifiedBy: text('verified_by'),
  method: text('method'),
  /** The `payment.paid` event that recorded it. */
  eventId: uuid('event_id'),
  createdAt: timestamp('created_at', { withTimezone: true }).notNull().defaultNow(),
})

/** Cases, one for each paid payment. */
export const cases = demo.table('cases', {
  caseId: uuid('case_id').primaryKey().defaultRandom(),
  paymentId: uuid('payment_id').notNull().unique(),
  tenantId: text('tenant_id').notNull(),
  openedAt: timestamp('opened_at', { withTimezone: true }).notNull().defaultNow(),
})

/** An arbitrary lock number: `create … if not exists` can fail when two processes run it at once. */
const tablesLock = 7_246_001

/** Creates the schema `demo` and its tables if they do not exist. Safe to call from any number of processes at once. */
export async function createTables(sql: Sql): Promise<void> {
  await sql.begin(async (tx) => {
    await tx`select pg_advisory_xact_lock(${tablesLock})`
    await tx`create schema if not exists demo`
    await tx`
      create table if not exists demo.payments (
        payment_id uuid primary key default gen_random_uuid(),
        tenant_id text not null,
        amount_cents bigint not null check (amount_cents > 0),
        currency text not null,
        status text not null default 'CREATED' check (status in ('CREATED', 'VERIFIED_PAID')),
        verified_by text,
        method text,
        event_id uuid,
        created_at timestamptz not null default now()
      )`
    await tx`
      create table if not exists demo.cases (
        case_id uuid primary key default gen_random_uuid(),
        payment_id uuid not null unique,
        tenant_id text not null,
        opened_at timestamptz not null default now()
      )`
  })
}
