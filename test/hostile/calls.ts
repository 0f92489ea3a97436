import { createBus, defineEvents, type Bus, type EventCatalogue } from '../../src/index.ts'
import { recordingLogger } from '../support/bus.ts'

/** A bus of events that take anything, with no types in the way: as JavaScript without TypeScript would call it. */
export type AnyBus = Bus

/** What a call is made with. */
export interface Surroundings {
  readonly bus: AnyBus
  /** Rows of a statement in its database. */
  readonly rows: (text: string, values?: readonly unknown[]) => Promise<Record<string, unknown>[]>
  /** Ids of dead letters of {@link failing}, of which each call that changes one takes one. */
  readonly letters: string[]
  /** An open Drizzle transaction, rolled back afterwards. */
  readonly tx: Parameters<AnyBus['publish']>[0]
}

/** Calls the API with a hostile text in one place. */
export type Call = (text: string, surroundings: Surroundings) => unknown

/**
 * A function or method of the public API, and everything in it that takes a text. What the API gains and this table does
 * not have makes `strings.test.ts` fail: add it, with a call, or to `noText` if it takes none.
 */
export interface Entry {
  /** By name of the parameter, or of the key of an object: how to put a text there. */
  readonly texts: Readonly<Record<string, Call>>
  /** Known keys of its options that take no text. */
  readonly noText?: readonly string[]
  /** Calls it with an option of that name, which it does not have, so that its error lists those that it has. */
  readonly probe?: (name: string, surroundings: Surroundings) => unknown
}

export const anything = {
  '~standard': { version: 1, vendor: 'tests', validate: (value: unknown) => ({ value }) },
} as const

export const anyEvents: EventCatalogue = defineEvents({ note: { schema: anything } })

export function newBus(options: object): AnyBus {
  return createBus({
    database: 'postgres://localhost:1/none',
    events: anyEvents,
    source: 'tests',
    logger: recordingLogger(),
    ...options,
  })
}

/** The name of the subscription that the dead letters are of. */
export const failing = 'failing'

/** A subscription that is registered, so that what goes with its name is stored. */
export const pausable = 'pausable'

/** An object with a hostile text as the name of a property. */
export function named(text: string, value: unknown = 1): object {
  return JSON.parse(`{${JSON.stringify(text)}: ${JSON.stringify(value)}}`) as object
}
