import type { Bus } from '../bus.ts'
import { DatabaseError } from '../foundation/errors.ts'
import type { RunOption } from '../run-option.ts'

/** How a bus is brought up. */
export interface StartPlan {
  readonly migrate: boolean
  readonly run: RunOption
  /** Whether a bus that does not come up is stopped. */
  readonly ownsBus: boolean
  /** After how many milliseconds Fastify gives the hook up, 0 for never. */
  readonly hookTimeoutMs: number
}

type StartableBus = Pick<Bus, 'migrate' | 'start' | 'stop'>

/** How much of Fastify's time is used, so that the bus's own error comes first. */
const shareOfHookTimeout = 0.95

/**
 * Migrates, where asked to, and starts. What failed to come up is stopped: no connection keeps the process alive.
 *
 * @throws whatever `migrate` and `start` throw; {@link DatabaseError} `BUS_DATABASE_UNAVAILABLE` when they take longer
 *   than Fastify waits, since Fastify's own error would blame a forgotten callback
 */
export async function startBus(bus: StartableBus, plan: StartPlan): Promise<void> {
  const starting = startOrStop(bus, plan)
  if (plan.hookTimeoutMs === 0) return starting
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      // Not waited for: it ends with the start that is still under way.
      if (plan.ownsBus) void stopQuietly(bus)
      reject(tooLate(plan.hookTimeoutMs))
    }, plan.hookTimeoutMs * shareOfHookTimeout)
  })
  try {
    return await Promise.race([starting, timeout])
  } finally {
    clearTimeout(timer)
  }
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

/** Why the bus did not come up is what the caller must hear, not what else went wrong afterwards. */
async function stopQuietly(bus: StartableBus): Promise<void> {
  await bus.stop({ graceMs: 0 }).catch(() => {})
}

function tooLate(hookTimeoutMs: number): DatabaseError {
  return new DatabaseError(
    'BUS_DATABASE_UNAVAILABLE',
    `The bus was not up within the ${hookTimeoutMs} ms that Fastify's \`pluginTimeout\` leaves it: the database does not answer, or is slow, or is being migrated by another process. Raise \`pluginTimeout\` if it only needs longer`,
    { retryable: true },
  )
}
