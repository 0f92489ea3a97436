import type { EventCatalogue } from './events/catalogue.ts'
import type { DatabaseOption } from './database/database.ts'
import type { RetentionOptions } from './retention/policy.ts'

/**
 * The default export of `bossbus.config.ts` (or `.js`, `.mjs`): what the CLI needs to know about a service. Import the
 * type with `import type { BossbusConfig } from 'bossbus'`. A bus made by `createBus` can be exported instead.
 */
export interface BossbusConfig {
  /** As in `createBus`. The flag `--database` and the environment take precedence. */
  readonly database?: DatabaseOption | undefined
  /** The catalogue made by `defineEvents`. */
  readonly events?: EventCatalogue | undefined
  /** The name of the service, as in `createBus`. */
  readonly source?: string | undefined
  /** As in `createBus`. */
  readonly bossSchema?: string | undefined
  /**
   * The file that `bossbus dev` runs, from the folder of the configuration: the entry of the service. A configuration that exports a bus
   * needs none, because its bus is started.
   */
  readonly dev?: string | undefined
  /** As in `createBus`: for the commands that prune and archive. */
  readonly retention?: RetentionOptions | undefined
}
