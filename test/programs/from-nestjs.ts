// From NestJS's EventEmitter: a provider keeps its methods and its injected services; what was `@OnEvent('payment.paid')`
// is a subscription, declared where the module starts.
import { createBus, type Bus, type EventOf, type Publisher } from '../../src/index.ts'
import type { BusTransaction } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

type Events = typeof events

class MailService {
  readonly sent: string[] = []
  send(subject: string): void {
    this.sent.push(subject)
  }
}

class PaymentListener {
  readonly #mails: MailService
  constructor(mails: MailService) {
    this.#mails = mails
  }

  // Was: @OnEvent('payment.paid')
  onPaid({ payload }: EventOf<Events, 'payment.paid'>): void {
    this.#mails.send(`Paid: ${payload.paymentId}`)
  }

  // Was: @OnEvent('payment.*')
  onAny({ type }: EventOf<Events, 'payment.paid' | 'payment.refunded'>): void {
    this.#mails.send(`Any: ${type}`)
  }

  // In onModuleInit
  register(bus: Bus<Events>): void {
    bus.subscribe({ name: 'mail-paid', events: ['payment.paid'], handler: (event) => this.onPaid(event) })
    bus.subscribe({ name: 'mail-any', events: ['payment.*'], handler: (event) => this.onAny(event) })
  }
}

class PaymentService {
  readonly #publisher: Publisher<Events>
  constructor(publisher: Publisher<Events>) {
    this.#publisher = publisher
  }

  // Was: this.eventEmitter.emit('payment.paid', { … }) after the commit
  async pay(tx: BusTransaction, tenantId: string, paymentId: string): Promise<void> {
    await this.#publisher.publish(tx, {
      type: 'payment.paid',
      tenantId,
      payload: { paymentId, amountCents: 4200 },
    })
  }
}

export async function run({ url, db }: Environment): Promise<string[]> {
  const bus = createBus({ database: url, events, source: 'payment-service' })
  const mails = new MailService()
  new PaymentListener(mails).register(bus)
  await bus.start()
  await db.transaction(async (tx) => new PaymentService(bus).pay(tx, 'acme', '42'))
  while (mails.sent.length < 2) await new Promise((resolve) => setTimeout(resolve, 10))
  await bus.stop()
  return mails.sent.toSorted()
}
