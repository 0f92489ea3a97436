import type { Bus } from '../../bus-interface.ts'
import type { Finding } from '../../health/finding.ts'
import type { OutboxState } from '../../health/outbox-state.ts'
import type { Operation } from '../../operations/operation.ts'
import type { DeadByErrorRow, DepthRow, SubscriptionStateRow } from '../../operations/query-rows.ts'
import type { CommandWord } from '../output/command-line.ts'
import { findingAsCalled, findingCommands } from './finding-commands.ts'

/** A subscription, how far behind it is, and what waits for it. */
export type SubscriptionStatus = SubscriptionStateRow &
  Partial<DepthRow> & { readonly lagSeconds: number | undefined }

/** All that is shown; as JSON, an object of these. */
export interface Status {
  /** With the commands that mend them, or tell more. */
  readonly findings: readonly (Finding & { readonly commands: readonly string[] })[]
  readonly subscriptions: readonly SubscriptionStatus[]
  /** What is not dispatched yet. */
  readonly outbox: (OutboxState & { readonly scheduledEvents: number }) | undefined
  readonly deadLetters: readonly DeadByErrorRow[]
  readonly operations: readonly Operation[]
}

const severities = ['error', 'warning', 'info']

/** Rows of dead letters and of operations. */
const maxRows = 10

/**
 * The lag is asked for twice, because it is not the same: the health reads that of the queues, to find those that are behind, and the query
 * counts what is not dispatched yet, and what is behind its key, for the subscriptions that wait for it.
 */
export async function readStatus(
  bus: Bus,
  command: (...words: readonly CommandWord[]) => string,
): Promise<Status> {
  const [health, states, depths, lags, deadLetters, ...operations] = await Promise.all([
    bus.health({ full: true }),
    bus.queries.subscriptionState(),
    bus.queries.depth(),
    bus.queries.lag(),
    bus.queries.deadByError({ limit: maxRows }),
    ...(['running', 'paused', 'stopped'] as const).map(async (each) =>
      bus.operations.list({ state: each, limit: maxRows }),
    ),
  ])
  const depthOf = new Map(depths.map((row) => [row.subscription, row]))
  const lagOf = new Map(lags.map((row) => [row.subscription, row.lagSeconds]))
  const subscriptions = states.map((row): SubscriptionStatus => ({
    ...depthOf.get(row.subscription),
    ...row,
    lagSeconds: lagOf.get(row.subscription),
  }))
  return {
    // This process delivers nothing, and is not meant to.
    findings: health.findings
      .filter(({ code }) => code !== 'not-started')
      .toSorted((a, b) => severities.indexOf(a.severity) - severities.indexOf(b.severity))
      .map((finding) => ({
        ...findingAsCalled(finding),
        commands: findingCommands(finding, command),
      })),
    subscriptions: subscriptions.toSorted((a, b) => urgency(b) - urgency(a)),
    outbox:
      health.outbox === undefined
        ? undefined
        : { ...health.outbox, scheduledEvents: depthOf.get(undefined)?.scheduledEvents ?? 0 },
    deadLetters,
    operations: operations.flat(),
  }
}

/** What needs somebody first; otherwise they stay in the order of their names. */
function urgency({ state: name, lagSeconds = 0, deadEvents = 0 }: SubscriptionStatus): number {
  return (name === 'active' ? 0 : 1e9) + (deadEvents > 0 ? 1e8 : 0) + Math.min(lagSeconds, 1e7)
}
