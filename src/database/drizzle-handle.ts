import { EventEmitter } from 'node:events'
import type { drizzle, NodePgDatabase } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import type { ConfigurationError } from '../foundation/errors.ts'
import { describe, invalidOption } from '../foundation/options.ts'

// All Drizzle types here are derived from two names that exist in 0.44 to 1.x, `drizzle` and `NodePgDatabase`, because
// the type parameters differ between versions.

/** The options object that `drizzle()` of the installed version takes. */
type Config = Extract<Parameters<typeof drizzle>[0], { readonly client: unknown }>

/**
 * The options of `drizzle()` besides its client, in the installed version of drizzle-orm: `casing`, `schema` and
 * `logger` in 0.44 and 0.45, `relations` and `logger` in 1.x, which specifies the casing with the tables.
 */
export type DrizzleSettings = {
  readonly [K in Exclude<keyof Config, 'client' | 'connection'>]?: Config[K] | undefined
}

/** A Drizzle handle. `ctx.tx` has the type of the transaction that it passes to a callback. */
interface TransactionalHandle {
  readonly transaction: (work: never) => Promise<unknown>
}

/**
 * Creates a Drizzle handle for a pool, such as `(client) => drizzle({ client, schema })` with the `drizzle` of
 * `drizzle-orm/node-postgres`. Called once. The pool belongs to the bus and only provides connections for transactions.
 */
export type DrizzleFactory = (client: pg.Pool) => TransactionalHandle

/** How to create the Drizzle handles for handlers and for `tenant.query`. */
export type DrizzleOption = DrizzleSettings | DrizzleFactory

/** The source of the tables in `tx.query`: `relations` in 1.x, `schema` before. */
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

/** A named type for editors: {@link HandlerTransaction} without tables. */
export interface PlainHandlerTransaction extends TransactionOf<NodePgDatabase> {}

/**
 * The transaction of an attempt: Drizzle on node-postgres, whatever driver the service itself uses, with the settings
 * that were passed to `createBus` as `drizzle`. Without settings it has no tables, and so no `tx.query`; select,
 * insert, update, delete, execute and nested `tx.transaction()` work.
 */
export type HandlerTransaction<D extends DrizzleOption = DrizzleOption> = [DrizzleOption] extends [D]
  ? PlainHandlerTransaction
  : D extends (...args: never[]) => infer H
    ? TransactionOf<H>
    : TransactionOf<DatabaseOf<D>>

/** An option of type `D` that contains only existing settings. */
export type Settings<D extends DrizzleOption> = D & {
  readonly [K in Exclude<keyof D, keyof DrizzleSettings>]?: never
}

/** Runs a statement of a handle: takes and returns the same as node-postgres. */
type HandleQuery = (config: string | { readonly text: string }, values?: unknown[]) => Promise<unknown>

/** Creates Drizzle transactions on connections that belong to the bus. */
export interface DrizzleHandles {
  /**
   * Loads Drizzle and creates the handle, so that errors in it are found at the start.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
   */
  load: () => Promise<void>
  /** Returns a transaction whose statements are sent through `query`. The caller begins and ends it. */
  open: (query: HandleQuery) => Promise<HandlerTransaction>
}

/**
 * The part of a connection that Drizzle's session uses: `query`, a listener for its loss, which the bus handles, and
 * `release`.
 */
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
    `Expected \`drizzle\` to be Drizzle settings without a connection, like { casing, schema }, or a function like (client) => drizzle({ client }), got ${describe(given)}`,
    'drizzle',
  )
}

/** A handle, or an instance of another class, is not a settings object. */
function isPlainObject(given: unknown): given is object {
  if (given === null || typeof given !== 'object') return false
  const prototype: unknown = Object.getPrototypeOf(given)
  return prototype === Object.prototype || prototype === null
}

/**
 * Drizzle is loaded on first use, because it takes 100 MB. One handle serves all transactions, because creating one
 * reads all its tables. The handle is created for a pool, and asks that pool for a connection for each transaction; it
 * receives the connection of the transaction that is being opened.
 */
export function createDrizzleHandles(option: DrizzleOption): DrizzleHandles {
  let made: Promise<TransactionalHandle> | undefined
  let lent: LentConnection | undefined
  let last: Promise<unknown> = Promise.resolve()

  async function make(): Promise<TransactionalHandle> {
    // A real pool, because Drizzle treats pools and connections differently. It never connects.
    const pool: unknown = Object.assign(new pg.Pool(), {
      connect: async () => lent ?? Promise.reject(notForThis()),
      query: async () => Promise.reject(notForThis()),
    })
    const handle: unknown = await makeHandle(option, pool as pg.Pool)
    if (typeof (handle as Partial<TransactionalHandle> | null)?.transaction === 'function')
      return handle as TransactionalHandle
    throw invalidOption(
      `Expected the function \`drizzle\` to return a Drizzle handle of the pool that it receives, got ${describe(handle)}`,
    )
  }

  async function openAlone(query: HandleQuery): Promise<HandlerTransaction> {
    made ??= make()
    const handle = await made
    let state: 'lent' | 'begun' | 'open' = 'lent'
    lent = Object.assign(new EventEmitter(), {
      async query(config: Parameters<HandleQuery>[0], values?: unknown[]) {
        if (state === 'open') return query(config, values)
        // Drizzle's begin is not sent, because the transaction already exists.
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
          // The bus ends the transaction: Drizzle never does, and nothing waits for this promise.
          return new Promise<never>(() => {})
        }
        handle.transaction(work as never).then(() => reject(notOfThePool()), reject)
      })
    } finally {
      lent = undefined
    }
  }

  /** Serialised, so that each transaction gets its own connection. None of them waits for the database. */
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
      'Expected `drizzle` to have no `casing`: this version of drizzle-orm expects it on the tables, as in `snakeCase.table(…)`',
      'drizzle',
    )
  return handle
}

function notForThis(): ConfigurationError {
  return invalidOption(
    'The pool passed to the function `drizzle` only provides connections for the transactions of the bus',
  )
}

function notOfThePool(): ConfigurationError {
  return invalidOption(
    'Expected the function `drizzle` to create a handle of the pool that it receives, not of its own connection',
  )
}
