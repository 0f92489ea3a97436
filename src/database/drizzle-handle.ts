import { EventEmitter } from 'node:events'
import type { drizzle, NodePgDatabase } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import type { ConfigurationError } from '../foundation/errors.ts'
import { describe, invalidOption } from '../foundation/options.ts'

// All types of Drizzle are derived from two names that 0.44 to 1.x have, `drizzle` and `NodePgDatabase`: their type parameters differ.

/** What `drizzle()` of the installed version takes as one object. */
type Config = Extract<Parameters<typeof drizzle>[0], { readonly client: unknown }>

/**
 * What `drizzle()` takes beside its client, in the version of drizzle-orm that is installed: `casing`, `schema` and `logger` in
 * 0.44 and 0.45, `relations` and `logger` in 1.x, where the casing is said with the tables.
 */
export type DrizzleSettings = {
  readonly [K in Exclude<keyof Config, 'client' | 'connection'>]?: Config[K] | undefined
}

/** A Drizzle handle: what is handed to the work of a transaction is what `ctx.tx` will be. */
interface TransactionalHandle {
  readonly transaction: (work: never) => Promise<unknown>
}

/**
 * Makes Drizzle's handle of a pool, such as `(client) => drizzle({ client, schema })` with the `drizzle` of
 * `drizzle-orm/node-postgres`. Called once. The pool is the bus's own: it gives connections for transactions only.
 */
export type DrizzleFactory = (client: pg.Pool) => TransactionalHandle

/** How the handles that the bus gives to handlers and to `tenant.query` are made. */
export type DrizzleOption = DrizzleSettings | DrizzleFactory

/** What the tables of `tx.query` are made of: `relations` in 1.x, `schema` before. */
type Relational<S> = 'relations' extends keyof Config
  ? S extends { readonly relations?: infer R }
    ? NonNullable<R>
    : never
  : S extends { readonly schema?: infer R }
    ? NonNullable<R>
    : never

type DatabaseOf<D> = [Relational<D>] extends [infer R extends Relational<Config>]
  ? [R] extends [never]
    ? NodePgDatabase
    : NodePgDatabase<R>
  : NodePgDatabase

type TransactionOf<H> = H extends {
  readonly transaction: (work: (tx: infer T) => Promise<never>, ...rest: never[]) => unknown
}
  ? T
  : never

/** A name for what editors show: {@link HandlerTransaction} without tables. */
export interface PlainHandlerTransaction extends TransactionOf<NodePgDatabase> {}

/**
 * The transaction of an attempt: Drizzle on node-postgres, whatever driver the service itself uses, with the settings that
 * `createBus` was given as `drizzle`, an object or a function. Without any it has no tables, so no `tx.query`; select, insert, update,
 * delete, execute and nested `tx.transaction()` are all there.
 */
export type HandlerTransaction<D extends DrizzleOption = DrizzleOption> = [DrizzleOption] extends [D]
  ? PlainHandlerTransaction
  : D extends (...args: never[]) => infer H
    ? TransactionOf<H>
    : TransactionOf<DatabaseOf<D>>

/** An option of type `D`, without settings that there are none of. */
export type Settings<D extends DrizzleOption> = D & {
  readonly [K in Exclude<keyof D, keyof DrizzleSettings>]?: never
}

/** Runs a statement of a handle: what node-postgres takes, and what it gives. */
type HandleQuery = (config: string | { readonly text: string }, values?: unknown[]) => Promise<unknown>

/** Makes Drizzle transactions on connections that stay the bus's. */
export interface DrizzleHandles {
  /**
   * Loads Drizzle and makes the handle, so that what is wrong with it is found at the start.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
   */
  load: () => Promise<void>
  /** A transaction whose statements go through `query`. Beginning it, and its end, are left to the caller. */
  open: (query: HandleQuery) => Promise<HandlerTransaction>
}

/** Of a connection, Drizzle's session uses `query`, listens for its loss, which is the bus's to notice, and gives it back. */
interface LentConnection extends EventEmitter {
  readonly query: HandleQuery
  readonly release: () => void
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function resolveDrizzle(given: unknown): DrizzleOption {
  if (given === undefined) return {}
  if (typeof given === 'function') return given as DrizzleFactory
  if (isPlainObject(given) && !('client' in given) && !('connection' in given)) return given
  throw invalidOption(
    `Expected \`drizzle\` to be settings of Drizzle without a connection, like { casing, schema }, or a function like (client) => drizzle({ client }), got ${describe(given)}`,
    'drizzle',
  )
}

/** A handle, or an instance of something else, is none. */
function isPlainObject(given: unknown): given is object {
  if (given === null || typeof given !== 'object') return false
  const prototype: unknown = Object.getPrototypeOf(given)
  return prototype === Object.prototype || prototype === null
}

/**
 * Drizzle is loaded with the first call: it takes 100 MB. One handle is made for all transactions, because making one reads all
 * its tables: it is made of a pool, and asks that for a connection for each transaction. It gets the one that the
 * transaction is opened for.
 */
export function createDrizzleHandles(option: DrizzleOption): DrizzleHandles {
  let made: Promise<TransactionalHandle> | undefined
  let lent: LentConnection | undefined
  let last: Promise<unknown> = Promise.resolve()

  async function make(): Promise<TransactionalHandle> {
    // A real one, because Drizzle treats pools and connections differently. It never connects.
    const pool: unknown = Object.assign(new pg.Pool(), {
      connect: async () => lent ?? Promise.reject(notForThis()),
      query: async () => Promise.reject(notForThis()),
    })
    const handle: unknown = await makeHandle(option, pool as pg.Pool)
    if (typeof (handle as Partial<TransactionalHandle> | null)?.transaction === 'function')
      return handle as TransactionalHandle
    throw invalidOption(
      `Expected the function \`drizzle\` to give Drizzle's handle of the pool that it gets, got ${describe(handle)}`,
    )
  }

  async function openAlone(query: HandleQuery): Promise<HandlerTransaction> {
    made ??= make()
    const handle = await made
    let state: 'lent' | 'begun' | 'open' = 'lent'
    lent = Object.assign(new EventEmitter(), {
      async query(config: Parameters<HandleQuery>[0], values?: unknown[]) {
        if (state === 'open') return query(config, values)
        // What Drizzle sends to begin is not sent: the transaction is there.
        state = 'begun'
        return { command: 'BEGIN', rows: [], fields: [] }
      },
      release: () => {},
    })
    try {
      return await new Promise<HandlerTransaction>((resolve, reject) => {
        const work = async (tx: unknown): Promise<never> => {
          if (state !== 'begun') throw notOfThePool()
          state = 'open'
          resolve(tx as HandlerTransaction)
          // Its end is the bus's: Drizzle never comes to it, and nothing waits for it.
          return new Promise<never>(() => {})
        }
        handle.transaction(work as never).then(() => reject(notOfThePool()), reject)
      })
    } finally {
      lent = undefined
    }
  }

  /** One after the other, so that each gets its own connection. None waits for the database. */
  async function open(query: HandleQuery): Promise<HandlerTransaction> {
    const opened = last.then(async () => openAlone(query))
    last = opened.catch(() => {})
    return opened
  }

  return {
    async load() {
      await open(async () => ({ rows: [] }))
    },
    open,
  }
}

async function makeHandle(option: DrizzleOption, client: pg.Pool): Promise<unknown> {
  if (typeof option === 'function') return option(client)
  const { drizzle } = await import('drizzle-orm/node-postgres')
  const handle = drizzle({ ...option, client } as Config)
  if (
    'casing' in option &&
    option.casing !== undefined &&
    !('casing' in (handle as unknown as { dialect: object }).dialect)
  )
    throw invalidOption(
      'Expected `drizzle` to have no `casing`: this version of drizzle-orm takes it with the tables, as in `snakeCase.table(…)`',
      'drizzle',
    )
  return handle
}

function notForThis(): ConfigurationError {
  return invalidOption(
    'The pool that the function `drizzle` gets gives connections for the transactions of the bus only',
  )
}

function notOfThePool(): ConfigurationError {
  return invalidOption(
    'Expected the function `drizzle` to make a handle of the pool that it gets, not of a connection of its own',
  )
}
