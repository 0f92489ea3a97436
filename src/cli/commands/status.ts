import type { Finding } from '../../health/finding.ts'
import { defineCommand } from '../command/command.ts'
import { counted, duration } from '../output/cells.ts'
import type { Output } from '../output/output.ts'
import { readStatus, type Status, type SubscriptionStatus } from '../views/read-status.ts'
import { bold, green, quiet, red, state, yellow, type Piece } from '../output/styled.ts'
import { operationColumns } from '../views/operation-page.ts'

export const status = defineCommand({
  examples: [
    ['status', 'does anything need me?'],
    ['status --json | jq .findings', 'for a check of a deployment: exit code 1 if a finding is an error'],
  ],
  async run({ bus, output }) {
    const read = await readStatus(await bus(), output.command)
    output.object(read, () => writeStatus(output, read))
    return read.findings.some(({ severity }) => severity === 'error') ? 1 : 0
  },
})

export function writeStatus(output: Output, read: Status): void {
  const { findings, subscriptions, outbox, deadLetters, operations } = read
  output.line(...headline(findings))
  for (const { code, severity, message, remedy, commands } of findings) {
    output.line()
    output.line(state(severity), '  ', bold(code), '  ', message)
    output.line('  ', quiet(remedy))
    for (const command of commands) output.line('  ', command)
  }
  output.heading('Subscriptions')
  if (subscriptions.length === 0) output.line('There are none yet.')
  writeSubscriptions(output, subscriptions)
  output.heading('Outbox')
  output.line(outboxLine(outbox))
  if (deadLetters.length > 0) {
    output.heading('Dead letters')
    output.table(deadLetters, [
      { title: 'SUBSCRIPTION', value: ({ subscription }) => subscription, isWhole: true },
      { title: 'EVENTS', value: ({ deadEvents }) => red(String(deadEvents)), align: 'right' },
      { title: 'LAST', value: ({ lastAt }) => lastAt },
      {
        title: 'ERROR',
        isProse: true,
        value: ({ errorName = '', errorCode, errorMessage = '' }) =>
          `${errorName}${errorCode === undefined ? '' : ` (${errorCode})`}${errorMessage === '' ? '' : `: ${errorMessage}`}`,
      },
    ])
  }
  if (operations.length > 0) {
    output.heading('Operations')
    output.table(operations, operationColumns)
  }
}

function headline(findings: readonly Finding[]): Piece[] {
  const errors = findings.filter(({ severity }) => severity === 'error').length
  const warnings = findings.filter(({ severity }) => severity === 'warning').length
  if (errors === 0 && warnings === 0) return [green('All is well.'), ' Nothing needs you.']
  const need = `${counted(errors + warnings, 'thing')} ${errors + warnings === 1 ? 'needs' : 'need'} you`
  return errors === 0
    ? [yellow(need), `: no error, ${counted(warnings, 'warning')}.`]
    : [red(need), `: ${counted(errors, 'error')}, ${counted(warnings, 'warning')}.`]
}

function writeSubscriptions(output: Output, subscriptions: readonly SubscriptionStatus[]): void {
  const alarming = (count = 0, style = red): Piece | number => (count === 0 ? 0 : style(String(count)))
  output.table(subscriptions, [
    { title: 'SUBSCRIPTION', value: ({ subscription }) => subscription, isWhole: true },
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
    {
      title: 'BEHIND',
      value: ({ behindEvents = 0, parkedEvents = 0 }) => alarming(behindEvents + parkedEvents, yellow),
      align: 'right',
    },
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
