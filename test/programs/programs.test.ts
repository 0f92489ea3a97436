import { describe, expect, test } from 'vitest'
import { createTestDatabase } from '../support/database.ts'
import * as arktypeCatalogue from './arktype-catalogue.ts'
import * as audit from './audit.ts'
import * as cloudEventReceiver from './cloud-event-receiver.ts'
import * as deadLetterReport from './dead-letter-report.ts'
import type { Environment } from './environment.ts'
import * as eraseCustomer from './erase-customer.ts'
import * as eventConstants from './event-constants.ts'
import * as exactlyOnceLedger from './exactly-once-ledger.ts'
import * as fromEventEmitter from './from-event-emitter.ts'
import * as fromNestjs from './from-nestjs.ts'
import * as fromPgBoss from './from-pg-boss.ts'
import * as handlerFiles from './handler-files.ts'
import * as injectedDependencies from './injected-dependencies.ts'
import * as integrationTest from './integration-test.ts'
import * as monorepo from './monorepo.ts'
import * as narrowPublisher from './narrow-publisher.ts'
import * as orderedLedger from './ordered-ledger.ts'
import * as pinoLogger from './pino-logger.ts'
import * as publisherOnly from './publisher-only.ts'
import * as rawPg from './raw-pg.ts'
import * as readiness from './readiness.ts'
import * as reminder from './reminder.ts'
import * as repositories from './repositories.ts'
import * as requestContext from './request-context.ts'
import * as retries from './retries.ts'
import * as singleTenant from './single-tenant.ts'
import * as tenantReads from './tenant-reads.ts'
import * as unitTests from './unit-tests.ts'
import * as valibotCatalogue from './valibot-catalogue.ts'
import * as versions from './versions.ts'
import * as waitForTwo from './wait-for-two.ts'
import * as webhook from './webhook.ts'
import * as workers from './workers.ts'

interface Program {
  readonly run: (environment: Environment) => Promise<unknown>
}

/** Runs a program on a database of its own. */
async function outcomeOf({ run }: Program): Promise<unknown> {
  const { url, db } = await createTestDatabase()
  return run({ url, db })
}

describe('events and their types', () => {
  test('packages of a monorepo keep their own catalogues on one bus', async () => {
    expect(await outcomeOf(monorepo)).toBe('order-7')
  })
  test('older payloads reach the handler in the newest shape', async () => {
    expect(await outcomeOf(versions)).toEqual([100, 4250])
  })
  test('a valibot schema gives handlers what it makes of the payload', async () => {
    expect(await outcomeOf(valibotCatalogue)).toBe('Hello ada@example.org')
  })
  test('an ArkType schema says where a payload does not fit, and nothing of it is stored', async () => {
    expect(await outcomeOf(arktypeCatalogue)).toEqual({
      issues: [[], ['count']],
      stored: [{ sku: 'chair', count: 4 }],
    })
  })
  test('types can be constants, also as the keys of a complete table', async () => {
    expect(await outcomeOf(eventConstants)).toEqual(['4200 came in', '4200 went out'])
  })
})

describe('publishing', () => {
  test('a repository takes the transaction of postgres.js and of node-postgres', async () => {
    expect(await outcomeOf(repositories)).toEqual({ status: 'paid', published: 2 })
  })
  test('a node-postgres client without an ORM commits rows and events together, or neither', async () => {
    expect(await outcomeOf(rawPg)).toEqual({
      committed: [true, false, true],
      stored: [
        { paymentId: '42', amountCents: 4200 },
        { paymentId: '43', amountCents: 100 },
      ],
    })
  })
  test('what a request knows goes along with what is published while it is served', async () => {
    expect(await outcomeOf(requestContext)).toEqual({
      stored: [
        { tenantId: 'zeta', correlationId: 'r-2', userId: 'bob' },
        { tenantId: 'acme', correlationId: 'r-1', userId: 'ada' },
      ],
      outside: expect.stringContaining('No request is being served') as unknown,
    })
  })
  test('a service of one tenant says it once', async () => {
    expect(await outcomeOf(singleTenant)).toEqual({ tenantId: 'main', caseId: 'case-42' })
  })
  test('a function that publishes one type takes a bus of more, a context and a fake', async () => {
    expect(await outcomeOf(narrowPublisher)).toEqual({
      stored: ['by-handler', 'by-service'],
      faked: ['by-test'],
    })
  })
  test('a webhook that comes twice is published once for each tenant', async () => {
    expect(await outcomeOf(webhook)).toEqual({ statuses: [202, 200, 202], stored: ['acme', 'zeta'] })
  })
  test('a CloudEvent comes in once, is refused where it does not fit, and goes out again', async () => {
    expect(await outcomeOf(cloudEventReceiver)).toEqual({
      statuses: [202, 200, 400, 400],
      forwarded: expect.objectContaining({
        specversion: '1.0',
        type: 'payment.paid',
        tenantid: 'acme',
        data: { paymentId: '42', amountCents: 4200 },
      }) as unknown,
    })
  })
  test('a reminder is cancelled by a payment that comes in time, and sent without one', async () => {
    expect(await outcomeOf(reminder)).toEqual({ cancelled: true, reminded: 'forgotten', tooLate: false })
  })
})

describe('subscriptions', () => {
  test('an index of handler files is subscribed in a loop', async () => {
    expect(await outcomeOf(handlerFiles)).toEqual({
      subscriptions: ['book-payment', 'log-everything', 'open-case'],
      cents: 4000,
    })
  })
  test('a handler gets its dependencies from a function that makes it', async () => {
    expect(await outcomeOf(injectedDependencies)).toBe('accounts@acme.example: Receipt 42')
  })
  test('a process goes on when both of two events have come', async () => {
    expect(await outcomeOf(waitForTwo)).toEqual(['1', '2'])
  })
  test('an audit trail has everything that was published', async () => {
    expect(await outcomeOf(audit)).toEqual([
      { tenantId: 'acme', type: 'payment.paid', payload: { paymentId: '42', amountCents: 4200 } },
      { tenantId: 'acme', type: 'case.opened', payload: { caseId: 'case-42', paymentId: '42' } },
    ])
  })
  test('bookings of an account come in order, also after one that failed', async () => {
    expect(await outcomeOf(orderedLedger)).toEqual({
      lines: { a: [1, 2, 3], b: [1, 2, 3] },
      failedOnce: true,
      blockedCount: 0,
    })
  })
  test('a ledger has an entry once, after two attempts that failed', async () => {
    expect(await outcomeOf(exactlyOnceLedger)).toEqual({
      attempts: [1, 2, 3],
      entries: [{ paymentId: '42', amountCents: 4200 }],
      caseCount: 1,
    })
  })
  test('what a provider answers decides about the next attempt', async () => {
    expect(await outcomeOf(retries)).toEqual({
      attempts: { refused: 1, busy: 2, down: 3 },
      dead: expect.arrayContaining([
        { attempts: 1, last: 'The card was refused' },
        { attempts: 3, last: 'The provider answered 503' },
      ]) as unknown,
    })
  })
})

describe('coming from elsewhere', () => {
  test("listeners of Node's EventEmitter become subscriptions", async () => {
    expect(await outcomeOf(fromEventEmitter)).toEqual(['41 paid 100', '42 paid 4200', 'case-42'])
  })
  test('a listener of NestJS keeps its methods and what is injected', async () => {
    expect(await outcomeOf(fromNestjs)).toEqual(['Any: payment.paid', 'Paid: 42'])
  })
  test('jobs of pg-boss become one event with a subscription for each receiver', async () => {
    expect(await outcomeOf(fromPgBoss)).toEqual({
      done: ['open-case 42 1', 'send-receipt 4200'],
      duplicate: true,
    })
  })
})

describe('processes and operation', () => {
  test('an API publishes and leaves the work to others', async () => {
    expect(await outcomeOf(publisherOnly)).toEqual({
      ok: true,
      relay: 'stopped',
      handledBy: ['payment-service'],
    })
  })
  test('workers run their own subscriptions of one service', async () => {
    expect(await outcomeOf(workers)).toEqual(['render-pdf in documents', 'send-mail in mails'])
  })
  test('a script tells what was given up, and why', async () => {
    expect(await outcomeOf(deadLetterReport)).toEqual([
      'send-receipt gave up payment.paid of acme after 2 attempts: The mail server says no (open-case delivered)',
    ])
  })
  test('a customer is erased, the others stay', async () => {
    expect(await outcomeOf(eraseCustomer)).toEqual({
      eventCount: 1,
      payloads: [null, { paymentId: 'of-8', amountCents: 4200 }],
      by: 'dpo@example.org',
    })
  })
  test('a tenant reads its own events, with a statement of its own too', async () => {
    expect(await outcomeOf(tenantReads)).toEqual({
      trace: ['payment.paid', 'case.opened'],
      own: 2,
      eventCount: 2,
      types: 2,
    })
  })
  test('a readiness probe follows the bus', async () => {
    expect(await outcomeOf(readiness)).toEqual(['503 created', '200 started', '503 stopped'])
  })
  test('a logger like pino gets fields first, and no payload', async () => {
    const { line, text } = await pinoLogger.run(await createTestDatabase())
    expect(line).toMatchObject({ level: 'info', module: 'bus', queue: 'cases', subscription: 'open-case' })
    expect(text).not.toContain('secret')
  })
})

describe('tests of services', () => {
  test('handlers and publishing code are tested without a database', async () => {
    expect(await unitTests.run()).toEqual(['case.opened', 'payment.refunded'])
  })
  test('service and bus are tested together', async () => {
    expect(await outcomeOf(integrationTest)).toEqual({ cases: ['case-42'], attempts: 16 })
  })
})

// It says for its own program what `app.bus` is, so it is no part of this one: test/programs/fastify/tsconfig.json.
test('routes of a Fastify service publish for the tenant of their request', async () => {
  const routes = (await import(new URL('fastify/routes.ts', import.meta.url).href)) as Program
  expect(await outcomeOf(routes)).toEqual({
    status: 202,
    tenantId: 'acme',
    correlated: true,
    payloads: [{ loanId: '7', userId: 'ada' }],
  })
})
