import type { Bus } from '../bus.ts'
import { DatabaseError } from '../foundation/errors.ts'
import { withTimeout } from '../foundation/with-timeout.ts'
import type { RunOption } from '../run-option.ts'

/** How to start a bus. */
export interface StartPlan {
  readonly migrate: boolean
  readonly run: RunOption
  /** Whether to stop a bus that fails to start. */
  readonly ownsBus: boolean
  /** The time in milliseconds after which Fastify gives up on the hook; 0 for never. */
  readonly hookTimeoutMs: number
}

type StartableBus = Pick<Bus, 'migrate' | 'start' | 'stop'>

/** The share of Fastify's time limit that is used, so that the bus's own error comes first. */
const shareOfHookTimeout = 0.95

/**
 * Migrates if requested, and starts. A bus that fails to start is stopped, so that no connection keeps the process
 * alive.
 *
 * @throws the errors of `migrate` and `start`; {@link DatabaseError} `BUS_DATABASE_UNAVAILABLE` if they take longer
 *   than Fastify waits, because Fastify's own error would blame a forgotten callback
 */
export async function startBus(bus: StartableBus, plan: StartPlan): Promise<void> {
  const starting = startOrStop(bus, plan)
  if (plan.hookTimeoutMs === 0) return starting
  await withTimeout(starting, plan.hookTimeoutMs * shareOfHookTimeout, () => {
    // Not awaited: it ends with the start that is still running.
    if (plan.ownsBus) void stopQuietly(bus)
    throw tooLate(plan.hookTimeoutMs)
  })
}

async function startOrStop(bus: StartableBus, plan: StartPlan): Promise<void> {
  try {
    if (plan.migrate) await bus.migrate()
    await bus.start({ run: plan.run })
  } catch (error) {
    if (plan.ownsBus) await stopQuietly(bus)
    throw error
  }
}

/** The caller must see why the bus did not start, not what failed afterwards. */
async function stopQuietly(bus: StartableBus): Promise<void> {
  await bus.stop({ graceMs: 0 }).catch(() => {})
}

function tooLate(hookTimeoutMs: number): DatabaseError {
  return new DatabaseError(
    'BUS_DATABASE_UNAVAILABLE',
    `The bus did not start within the ${hookTimeoutMs} ms of Fastify's \`pluginTimeout\`: the database does not answer, is slow, or is being migrated by another process. Raise \`pluginTimeout\` if it only needs more time`,
    { retryable: true },
  )
}
