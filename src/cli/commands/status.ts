import type { Bus } from '../../bus-interface.ts'
import type { Finding } from '../../health/finding.ts'
import type { OutboxState } from '../../health/outbox-state.ts'
import type { Operation } from '../../operations/operation.ts'
import type { DeadByErrorRow, DepthRow, SubscriptionStateRow } from '../../operations/query-rows.ts'
import { defineCommand } from '../command/command.ts'
import { counted, duration } from '../output/cells.ts'
import type { Output } from '../output/output.ts'
import { bold, green, quiet, red, state, yellow, type Piece } from '../output/styled.ts'

/** A subscription, how far behind it is, and what waits for it. */
type SubscriptionStatus = SubscriptionStateRow &
  Partial<DepthRow> & { readonly lagSeconds: number | undefined }

/** All that is shown; as JSON, an object of these. */
export interface Status {
  readonly findings: readonly Finding[]
  readonly subscriptions: readonly SubscriptionStatus[]
  /** What is not dispatched yet. */
  readonly outbox: (OutboxState & { readonly scheduledEvents: number }) | undefined
  readonly deadLetters: readonly DeadByErrorRow[]
  readonly operations: readonly Operation[]
}

const severities = ['error', 'warning', 'info']

/** Rows of dead letters and of operations. */
const maxRows = 10

export const status = defineCommand({
  examples: [
    ['status', 'does anything need me?'],
    ['status --json | jq .findings', 'for a check of a deployment: exit code 1 if a finding is an error'],
  ],
  async run({ bus, output }) {
    const read = await readStatus(await bus())
    output.object(read, () => writeStatus(output, read))
    return read.findings.some(({ severity }) => severity === 'error') ? 1 : 0
  },
})

export async function readStatus(bus: Bus): Promise<Status> {
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
      .toSorted((a, b) => severities.indexOf(a.severity) - severities.indexOf(b.severity)),
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

export function writeStatus(output: Output, read: Status): void {
  const { findings, subscriptions, outbox, deadLetters, operations } = read
  output.line(...headline(findings))
  for (const { code, severity, message, remedy } of findings) {
    output.line()
    output.line(state(severity), '  ', bold(code), '  ', message)
    output.line('  ', quiet(remedy))
  }
  output.heading('Subscriptions')
  if (subscriptions.length === 0) output.line('There are none yet.')
  writeSubscriptions(output, subscriptions)
  output.heading('Outbox')
  output.line(outboxLine(outbox))
  if (deadLetters.length > 0) {
    output.heading('Dead letters')
    output.table(deadLetters, [
      { title: 'SUBSCRIPTION', value: ({ subscription }) => subscription },
      { title: 'EVENTS', value: ({ deadEvents }) => red(String(deadEvents)), align: 'right' },
      { title: 'LAST', value: ({ lastAt }) => lastAt },
      {
        title: 'ERROR',
        value: ({ errorName = '', errorCode, errorMessage = '' }) =>
          `${errorName}${errorCode === undefined ? '' : ` (${errorCode})`}${errorMessage === '' ? '' : `: ${errorMessage}`}`,
      },
    ])
  }
  if (operations.length > 0) {
    output.heading('Operations')
    output.table(operations, [
      { title: 'ID', value: ({ id }) => id, isWhole: true },
      { title: 'KIND', value: ({ kind }) => kind },
      { title: 'STATE', value: ({ state: name }) => state(name) },
      { title: 'SUBSCRIPTIONS', value: (each) => each.subscriptions },
      { title: 'BY', value: ({ by }) => by },
      { title: 'SINCE', value: ({ createdAt }) => createdAt },
      { title: 'WHY', value: ({ stateReason, reason }) => stateReason ?? reason },
    ])
  }
}

function headline(findings: readonly Finding[]): Piece[] {
  const errors = findings.filter(({ severity }) => severity === 'error').length
  const warnings = findings.filter(({ severity }) => severity === 'warning').length
  if (errors === 0 && warnings === 0) return [green('All is well.'), ' Nothing needs you.']
  const need = `${counted(errors + warnings, 'thing')} ${errors + warnings === 1 ? 'needs' : 'need'} you`
  return errors === 0
    ? [yellow(need), ': events are delivered.']
    : [red(need), `: ${counted(errors, 'error')}, ${counted(warnings, 'warning')}.`]
}

function writeSubscriptions(output: Output, subscriptions: readonly SubscriptionStatus[]): void {
  const alarming = (count = 0, style = red): Piece | number => (count === 0 ? 0 : style(String(count)))
  output.table(subscriptions, [
    { title: 'SUBSCRIPTION', value: ({ subscription }) => subscription },
    { title: 'STATE', value: (row) => state(row.state) },
    {
      title: 'LAG',
      value: ({ lagSeconds }) =>
        lagSeconds === undefined || !output.isTerminal || lagSeconds === 0
          ? lagSeconds
          : duration(lagSeconds * 1000),
      align: 'right',
    },
    {
      title: 'READY',
      value: ({ readyEvents = 0, pausedEvents = 0 }) => readyEvents + pausedEvents,
      align: 'right',
    },
    { title: 'ACTIVE', value: ({ activeEvents }) => activeEvents, align: 'right' },
    { title: 'RETRYING', value: ({ retryingEvents }) => alarming(retryingEvents, yellow), align: 'right' },
    { title: 'DEAD', value: ({ deadEvents }) => alarming(deadEvents), align: 'right' },
    { title: 'PROCESSES', value: ({ instanceCount }) => instanceCount, align: 'right' },
    { title: 'SERVICE', value: ({ service }) => service },
  ])
}

function outboxLine(outbox: Status['outbox']): string {
  if (outbox === undefined) return 'It could not be read.'
  const { depth, lagSeconds, scheduledEvents } = outbox
  const scheduled = scheduledEvents === 0 ? '' : ` ${counted(scheduledEvents, 'event')} scheduled for later.`
  return depth === 0
    ? `Empty: everything is dispatched.${scheduled}`
    : `${counted(depth, 'event')} not dispatched yet, the first for ${duration(lagSeconds * 1000)}.${scheduled}`
}
