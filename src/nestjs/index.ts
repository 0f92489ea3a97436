/**
 * bossbus for NestJS: methods that handle events, and the bus started and stopped with the application.
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

/** What {@link nestBus} gives. */
export interface NestBus<C extends EventCatalogue, Tx = HandlerTransaction> {
  /** Takes what `bus.subscribe` takes, but for the handler. */
  readonly Subscribe: Subscribe<C, Tx>
}

/**
 * The decorator of a catalogue: event and context of the methods are checked against it when they are compiled.
 *
 * @example
 * ```ts
 * const { Subscribe } = nestBus(events)
 *
 * @Injectable()
 * class Cases {
 *   @Subscribe({ name: 'open-case', events: ['payment.paid'] })
 *   async openCase(event: EventOf<typeof events, 'payment.paid'>, ctx: HandlerContext<typeof events>) {
 *     ctx.log.info({ attempt: ctx.attempt }, `opening a case for ${event.payload.paymentId}`)
 *   }
 * }
 * ```
 * @typeParam Tx - what `ctx.tx` is with `mode: 'exactly-once'`, where `createBus` was given `drizzle`
 * @throws {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export function nestBus<const C extends EventCatalogue, Tx = HandlerTransaction>(events: C): NestBus<C, Tx> {
  assertObject('the catalogue that defineEvents gives', events)
  const subscribe = (options: unknown): HandlerDecorator<never> => {
    assertObject('options like { name, events }', options)
    return (...decorated: readonly unknown[]) => decorate(options, ...decorated)
  }
  return { Subscribe: subscribe as Subscribe<C, Tx> }
}

/** Injects the bus: `constructor(@InjectBus() private readonly bus: Bus<typeof events>)`. */
export const InjectBus = (): ParameterDecorator & PropertyDecorator => Inject(busToken)
