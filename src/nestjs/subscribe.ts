import { invalidOption } from '../foundation/options.ts'
import type { EventCatalogue } from '../events/catalogue.ts'
import type { EventPattern } from '../events/pattern.ts'
import type { ConfigurationError } from '../foundation/errors.ts'
import type {
  DeliveryMode,
  Handler,
  OptionsBesideHandler,
} from '../delivery/subscriptions/subscription-options.ts'
import type { HandlerTransaction } from '../database/drizzle-handle.ts'

/** A subscription without its handler: the handler is the decorated method. */
export type MethodSubscription<
  C extends EventCatalogue,
  P extends EventPattern<C>,
  M extends DeliveryMode = 'at-least-once',
> = OptionsBesideHandler<P, M>

/**
 * A decorator for methods that can handle the events of the subscription. Works with TypeScript's
 * `experimentalDecorators` and with standard decorators.
 */
export interface HandlerDecorator<H extends (...args: never[]) => unknown> {
  <T extends H>(target: object, key: string | symbol, descriptor: TypedPropertyDescriptor<T>): void
  <T extends H>(method: T, context: ClassMethodDecoratorContext): void
}

/** Decorates a method of a provider or controller: it is called for each event of the subscription. */
export type Subscribe<C extends EventCatalogue, Tx = HandlerTransaction> = <
  const P extends EventPattern<C>,
  const M extends DeliveryMode = 'at-least-once',
>(
  options: MethodSubscription<C, P, M>,
) => HandlerDecorator<Handler<C, P, M, Tx>>

/** A decorated method that was found on a class. */
export interface DecoratedMethod {
  readonly name: string | symbol
  readonly subscriptions: readonly object[]
}

/** By prototype and name, so that a decorator that replaces the method has no effect. */
const byPrototype = new WeakMap<object, Map<string | symbol, object[]>>()
/** Standard decorators receive the method, but not its class. */
const byFunction = new WeakMap<object, object[]>()

/** @throws {@link ConfigurationError} `BUS_INVALID_OPTION` if the target is not an instance method of a class */
export function decorate(options: object, ...[target, context]: readonly unknown[]): void {
  if (isStandardContext(context)) {
    if (context.kind !== 'method' || context.static || context.private) throw notAMethod(context.name)
    byFunction.set(target as object, [...(byFunction.get(target as object) ?? []), options])
    return
  }
  const name = context as string | symbol
  // For a static method the target is the class.
  if (typeof target !== 'object' || target === null || !isMethod(target, name)) throw notAMethod(name)
  const methods = byPrototype.get(target) ?? new Map<string | symbol, object[]>()
  methods.set(name, [...(methods.get(name) ?? []), options])
  byPrototype.set(target, methods)
}

interface StandardContext {
  readonly kind: unknown
  readonly name: string | symbol
  readonly static: boolean
  readonly private: boolean
}

function isStandardContext(context: unknown): context is StandardContext {
  return typeof context === 'object' && context !== null && 'kind' in context
}

function isMethod(prototype: object, name: string | symbol): boolean {
  return typeof Object.getOwnPropertyDescriptor(prototype, name)?.value === 'function'
}

function notAMethod(name: unknown): ConfigurationError {
  return invalidOption(
    `Expected @Subscribe to decorate a public instance method of a class that Nest instantiates: \`${String(name)}\` is not one`,
  )
}

/** The decorated methods of a class and its ancestors; of methods with the same name, the one of the subclass. */
export function decoratedMethods(prototype: object): readonly DecoratedMethod[] {
  const found = new Map<string | symbol, DecoratedMethod>()
  for (let at: object | null = prototype; at !== null; at = Object.getPrototypeOf(at) as object | null) {
    for (const name of Reflect.ownKeys(at)) {
      const subscriptions = [
        ...(byPrototype.get(at)?.get(name) ?? []),
        ...(byFunction.get(functionAt(at, name)) ?? []),
      ]
      if (subscriptions.length > 0 && !found.has(name)) found.set(name, { name, subscriptions })
    }
  }
  return [...found.values()]
}

/** Reads the property without calling a getter. */
function functionAt(at: object, name: string | symbol): object {
  const value: unknown = Object.getOwnPropertyDescriptor(at, name)?.value
  return typeof value === 'function' ? value : noFunction
}

const noFunction = {}
