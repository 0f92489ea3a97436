import type { EventCatalogue } from './events/catalogue.ts'
import type { DatabaseOption } from './database/database.ts'

/**
 * What `bossbus.config.ts` (or `.js`, `.mjs`) exports by default: what the CLI has to know of a service. Import this type
 * with `import type { BossbusConfig } from 'bossbus'`.
 */
export interface BossbusConfig {
  /** As in `createBus`. The flag `--database` and the environment come first. */
  readonly database?: DatabaseOption | undefined
  /** The catalogue made by `defineEvents`. */
  readonly events?: EventCatalogue | undefined
  /** The name of the service, as in `createBus`. */
  readonly source?: string | undefined
  /** As in `createBus`. */
  readonly bossSchema?: string | undefined
}
