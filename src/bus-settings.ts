import type { BusOptions } from './bus-options.ts'
import type { EventCatalogue } from './events/catalogue.ts'

/** Where a bus keeps the options that it was created with. The same in every copy of the package. */
const key = Symbol.for('bossbus.options')

/** Where it keeps what was passed to its `subscribe`. */
const declaredKey = Symbol.for('bossbus.declared')

/** Remembers the options and the subscriptions of a bus, for the command line: its own bus then uses the same database, and not the service's logger. */
export function rememberOptions<B extends object>(
  options: BusOptions<EventCatalogue>,
  declared: () => readonly object[],
  bus: B,
): B {
  return Object.defineProperties(bus, { [key]: { value: options }, [declaredKey]: { value: declared } })
}

/** The options that a bus was created with. Undefined if it was created by a copy of the package that does not remember them. */
export function optionsOf(bus: object): BusOptions<EventCatalogue> | undefined {
  return (bus as { readonly [key]?: BusOptions<EventCatalogue> })[key]
}

/** What was passed to `subscribe` of a bus. */
export function declaredOf(bus: object): readonly object[] {
  return (bus as { readonly [declaredKey]?: () => readonly object[] })[declaredKey]?.() ?? []
}
