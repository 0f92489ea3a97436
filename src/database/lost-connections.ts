import type { BusLogger } from '../foundation/logger.ts'

/** Connections that are lost within this time for the same reason are said once. */
const burstMs = 1000

/** Logs that an idle connection was lost: once for all of those that a server or a network takes at the same time. */
export function createLossLog(logger: Pick<BusLogger, 'warn'>): (reason: string) => void {
  const saidAt = new Map<string, number>()
  return (reason) => {
    const now = performance.now()
    for (const [each, at] of saidAt) if (now - at > burstMs) saidAt.delete(each)
    if (saidAt.has(reason)) return
    saidAt.set(reason, now)
    logger.warn({ reason }, 'an idle database connection was lost')
  }
}
