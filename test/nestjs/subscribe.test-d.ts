// oxlint-disable vitest/expect-expect -- a line that must not compile is an assertion too
import { expectTypeOf, test } from 'vitest'
import type { EventOf, ExactlyOnceContext, HandlerContext } from '../../src/index.ts'
import { nestBus } from '../../src/nestjs/index.ts'
import { events, type Events } from '../types/support.ts'

const { Subscribe } = nestBus(events)

type Paid = EventOf<Events, 'payment.paid'>

test('a decorated method takes the events of its subscription, and its context', () => {
  class Cases {
    @Subscribe({ name: 'a', events: ['payment.paid'], concurrency: 2 })
    paid(event: Paid, ctx: HandlerContext<Events>): void {
      expectTypeOf(event.payload.cents).toEqualTypeOf<number>()
      void ctx
    }

    @Subscribe({ name: 'b', events: ['payment.paid'] })
    nothing(): void {}

    @Subscribe({ name: 'c', events: ['payment.paid'], mode: 'exactly-once' })
    async once({ payload }: Paid, { tx }: ExactlyOnceContext<Events>): Promise<void> {
      void [payload, tx]
    }

    @Subscribe({ name: 'd', events: ['payment.paid', 'payment.refunded'] })
    both(event: EventOf<Events, 'payment.paid' | 'payment.refunded'>): void {
      void event
    }

    // @ts-expect-error -- another event
    @Subscribe({ name: 'e', events: ['payment.refunded'] })
    otherEvent(event: Paid): void {
      void event
    }

    // @ts-expect-error -- one of two
    @Subscribe({ name: 'f', events: ['payment.paid', 'payment.refunded'] })
    oneOfTwo(event: Paid): void {
      void event
    }

    // @ts-expect-error -- there is no `tx` without exactly-once
    @Subscribe({ name: 'g', events: ['payment.paid'] })
    withoutTransaction(_event: Paid, { tx }: ExactlyOnceContext<Events>): void {
      void tx
    }
  }
  expectTypeOf(Cases).toBeConstructibleWith()
})

test('the older decorators are checked alike', () => {
  const decorator = Subscribe({ name: 'a', events: ['payment.paid'] })
  const target = {}
  void (() => decorator(target, 'paid', {} as TypedPropertyDescriptor<(event: Paid) => void>))
  void (() =>
    decorator(
      target,
      'refunded',
      // @ts-expect-error -- another event
      {} as TypedPropertyDescriptor<(event: EventOf<Events, 'payment.refunded'>) => void>,
    ))
})

test('a subscription of a method has the options of any other, and no handler', () => {
  // @ts-expect-error -- no such event
  Subscribe({ name: 'a', events: ['payment.payed'] })
  // @ts-expect-error -- no name
  Subscribe({ events: ['payment.paid'] })
  // @ts-expect-error -- the method is the handler
  Subscribe({ name: 'a', events: ['payment.paid'], handler: () => {} })
})
