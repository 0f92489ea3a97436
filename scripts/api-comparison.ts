/**
 * Measures how much code is needed to declare an event, to publish it, and to handle it in a file of its own: non-blank
 * characters including imports, as shown in the documentation of each library. docs/comparison.md has the table.
 */

/** The same example in one library: a payment is paid, and a case is opened for it. */
interface Library {
  readonly name: string
  /** The page of its documentation that shows this. */
  readonly source: string
  readonly event: string
  readonly publish: string
  readonly subscription: string
  /** What a published event survives. */
  readonly keeps: string
  /** Whether payloads are validated when they are published. */
  readonly checks: string
}

export const libraries: readonly Library[] = [
  {
    name: 'bossbus',
    source: 'README.md',
    event: `
import { defineEvents } from 'bossbus'
import { z } from 'zod'

export const events = defineEvents({
  'payment.paid': { schema: z.object({ paymentId: z.string(), amountCents: z.number() }) },
})
`,
    publish: `
await bus.publish(tx, { type: 'payment.paid', tenantId, payload: { paymentId, amountCents } })
`,
    subscription: `
import { defineSubscription } from 'bossbus'
import { openCaseFor } from './cases.ts'
import { events } from './events.ts'

export const openCase = defineSubscription(events, {
  name: 'open-case',
  events: ['payment.paid'],
  handler: async ({ payload }) => openCaseFor(payload.paymentId),
})
`,
    keeps: 'commits with the transaction; crashes, retries, dead letters',
    checks: 'type and schema',
  },
  {
    name: 'pg-boss 12',
    source: 'its declarations: `publish`, `subscribe`, `work`, `fromDrizzle`',
    event: `
export interface PaymentPaid {
  readonly paymentId: string
  readonly amountCents: number
}
`,
    publish: `
import { sql } from 'drizzle-orm'
import { fromDrizzle } from 'pg-boss'
import type { PaymentPaid } from './events.ts'

const data: PaymentPaid = { paymentId, amountCents }
await boss.publish('payment.paid', data, { db: fromDrizzle(tx, sql) })
`,
    subscription: `
import type { PgBoss } from 'pg-boss'
import { openCaseFor } from './cases.ts'
import type { PaymentPaid } from './events.ts'

export async function openCase(boss: PgBoss): Promise<void> {
  await boss.createQueue('open-case')
  await boss.subscribe('payment.paid', 'open-case')
  await boss.work<PaymentPaid>('open-case', async ([job]) => {
    if (job) await openCaseFor(job.data.paymentId)
  })
}
`,
    keeps: 'commits with the transaction; crashes, retries, dead letters',
    checks: 'type, where it is said',
  },
  {
    name: 'Inngest 4',
    source: 'inngest.com/docs/reference/typescript/v4: `eventType`, `send`, `createFunction`',
    event: `
import { eventType } from 'inngest'
import { z } from 'zod'

export const paymentPaid = eventType('payment.paid', {
  schema: z.object({ paymentId: z.string(), amountCents: z.number() }),
})
`,
    publish: `
import { paymentPaid } from './events.ts'

await inngest.send(paymentPaid.create({ paymentId, amountCents }))
`,
    subscription: `
import { openCaseFor } from './cases.ts'
import { inngest } from './client.ts'
import { paymentPaid } from './events.ts'

export const openCase = inngest.createFunction(
  { id: 'open-case', triggers: [paymentPaid] },
  async ({ event, step }) => step.run('open', async () => openCaseFor(event.data.paymentId)),
)
`,
    keeps: 'what its server has accepted; not with the transaction',
    checks: 'type and schema',
  },
  {
    name: 'NestJS EventEmitter',
    source: 'docs.nestjs.com/application/events',
    event: `
export class PaymentPaidEvent {
  constructor(
    readonly paymentId: string,
    readonly amountCents: number,
  ) {}
}
`,
    publish: `
import { PaymentPaidEvent } from './payment-paid.event'

this.eventEmitter.emit('payment.paid', new PaymentPaidEvent(paymentId, amountCents))
`,
    subscription: `
import { Injectable } from '@nestjs/common'
import { OnEvent } from '@nestjs/event-emitter'
import { CasesService } from './cases.service'
import { PaymentPaidEvent } from './payment-paid.event'

@Injectable()
export class OpenCaseListener {
  constructor(private readonly cases: CasesService) {}

  @OnEvent('payment.paid')
  async openCase(event: PaymentPaidEvent) {
    await this.cases.openCaseFor(event.paymentId)
  }
}
`,
    keeps: 'nothing: in memory, of one process',
    checks: 'type of the class; not that of the name',
  },
  {
    name: 'NestJS CQRS',
    source: 'docs.nestjs.com/recipes/cqrs',
    event: `
export class PaymentPaidEvent {
  constructor(
    readonly paymentId: string,
    readonly amountCents: number,
  ) {}
}
`,
    publish: `
import { PaymentPaidEvent } from './payment-paid.event'

this.eventBus.publish(new PaymentPaidEvent(paymentId, amountCents))
`,
    subscription: `
import { EventsHandler, IEventHandler } from '@nestjs/cqrs'
import { CasesService } from './cases.service'
import { PaymentPaidEvent } from './payment-paid.event'

@EventsHandler(PaymentPaidEvent)
export class OpenCaseHandler implements IEventHandler<PaymentPaidEvent> {
  constructor(private readonly cases: CasesService) {}

  async handle(event: PaymentPaidEvent) {
    await this.cases.openCaseFor(event.paymentId)
  }
}
`,
    keeps: 'nothing: in memory, of one process',
    checks: 'type of the class',
  },
]

const characterCount = (code: string): number => code.replaceAll(/\s/g, '').length

/** The table of docs/comparison.md. */
export function comparisonTable(): string {
  const rows = libraries.map(({ name, event, publish, subscription, keeps, checks }) => {
    const counts = [event, publish, subscription].map(characterCount)
    const sum = counts.reduce((a, b) => a + b)
    return `| ${[name, ...counts, sum, keeps, checks].join(' | ')} |`
  })
  return [
    '| | the event | publishing it | its subscription | in all | what an event survives | what is checked of it |',
    '|---|---|---|---|---|---|---|',
    ...rows,
  ].join('\n')
}
