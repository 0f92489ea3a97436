import type { BusOptions } from './bus-options.ts'
import type { EventCatalogue } from './events/catalogue.ts'

/** Where a bus keeps the options that it was created with. The same in every copy of the package. */
const key = Symbol.for('bossbus.options')

/** Remembers the options of a bus, for the command line: its own bus then uses the same database, and not the service's logger. */
export function rememberOptions<B extends object>(options: BusOptions<EventCatalogue>, bus: B): B {
  return Object.defineProperty(bus, key, { value: options })
}

/** The options that a bus was created with. Undefined if it was created by a copy of the package that does not remember them. */
export function optionsOf(bus: object): BusOptions<EventCatalogue> | undefined {
  return (bus as { readonly [key]?: BusOptions<EventCatalogue> })[key]
}
