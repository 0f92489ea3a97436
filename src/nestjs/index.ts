/**
 * bossbus for NestJS: methods that handle events, and a bus that starts and stops with the application.
 *
 * @module
 */
import { Inject } from '@nestjs/common'
import type { HandlerTransaction } from '../database/drizzle-handle.ts'
import type { EventCatalogue } from '../events/catalogue.ts'
import { assertObject } from '../foundation/options.ts'
import { busToken } from './bus-module.ts'
import { decorate, type HandlerDecorator, type Subscribe } from './subscribe.ts'

export { BusModule, busToken, type BusFactory, type BusModuleOptions } from './bus-module.ts'
export type { HandlerDecorator, MethodSubscription, Subscribe } from './subscribe.ts'

/** The result of {@link nestBus}. */
export interface NestBus<C extends EventCatalogue, Tx = HandlerTransaction> {
  /** Takes the options of `bus.subscribe` without the handler. */
  readonly Subscribe: Subscribe<C, Tx>
}

/**
 * Creates the decorator for a catalogue. The event and context parameters of decorated methods are checked at compile
 * time.
 *
 * @example
 * ```ts
 * const { Subscribe } = nestBus(events)
 *
 * @Injectable()
 *   class Cases {
 *   @Subscribe({ name: 'open-case', events: ['payment.paid'] })
 *   async openCase(event: EventOf<typeof events, 'payment.paid'>, ctx: HandlerContext<typeof events>) {
 *     ctx.log.info({ attempt: ctx.attempt }, `opening a case for ${event.payload.paymentId}`)
 *   }
 *   }
 *   ```
 * @typeParam Tx - the type of `ctx.tx` with `mode: 'exactly-once'`, if `createBus` was given `drizzle`
 * @throws {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export function nestBus<const C extends EventCatalogue, Tx = HandlerTransaction>(events: C): NestBus<C, Tx> {
  assertObject('the catalogue that defineEvents returns', events)
  const subscribe = (options: unknown): HandlerDecorator<never> => {
    assertObject('options like { name, events }', options)
    return (...decorated: readonly unknown[]) => decorate(options, ...decorated)
  }
  return { Subscribe: subscribe as Subscribe<C, Tx> }
}

/** Injects the bus: `constructor(@InjectBus() private readonly bus: Bus<typeof events>)`. */
export const InjectBus = (): ParameterDecorator & PropertyDecorator => Inject(busToken)
