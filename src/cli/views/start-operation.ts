import { setTimeout as pause } from 'node:timers/promises'
import type { Bus } from '../../bus-interface.ts'
import type { Operation } from '../../operations/operation.ts'
import type { CommandContext, ExitCode } from '../command/command.ts'
import { counted } from '../output/cells.ts'
import { state } from '../output/styled.ts'
import { doneOf, totalOf, writeOperation } from './operation-page.ts'

const firstPauseMs = 200
const maxPauseMs = 2000

/**
 * Tells of an operation that this command has started, and with `isWaiting` waits until it has ended, or is held. 1 if it ends in another
 * state than done, or with events that could not be delivered.
 */
export async function reportStarted(
  { output, inTime }: Pick<CommandContext, 'output' | 'inTime'>,
  bus: Bus,
  started: Operation,
  isWaiting: boolean,
): Promise<ExitCode> {
  const { id, kind, subscriptions } = started
  if (!isWaiting) {
    const total = totalOf(started)
    output.object(started, () =>
      output.line(
        `Started a ${nounOf(kind)}${total === undefined ? '' : ` of ${counted(total, 'event')}`}${subscriptions.length === 0 ? '' : ` for ${subscriptions.join(', ')}`}: operation ${id}.`,
      ),
    )
    if (!(await mayBegin(inTime, bus))) output.note(nobodyRuns)
    output.note(`Next: ${output.command('operations', 'show', id)}`)
    return 0
  }
  output.note(`Waiting for operation ${id}, which goes on if this command ends.`)
  if (!(await mayBegin(inTime, bus))) output.note(nobodyRuns)
  const ended = await follow({ output, inTime }, bus, started)
  output.object(ended, () => writeOperation(output, ended))
  return judge(output, ended)
}

/** What a sentence calls it. */
function nounOf(kind: Operation['kind']): string {
  return kind === 'remove' ? 'removal' : kind
}

const nobodyRuns = 'No process of the bus runs now: the operation begins when one does.'

/** True as well where it cannot be told: the operation is there, and whoever started it must not start another one. */
async function mayBegin(inTime: CommandContext['inTime'], bus: Bus): Promise<boolean> {
  return inTime(bus.queries.instances({ limit: 1000 })).then(
    (instances) => instances.some(({ isLive }) => isLive),
    () => true,
  )
}

async function follow(
  { output, inTime }: Pick<CommandContext, 'output' | 'inTime'>,
  bus: Bus,
  started: Operation,
): Promise<Operation> {
  const progress = output.progress(started.kind)
  let operation = started
  let pauseMs = firstPauseMs
  try {
    for (;;) {
      progress.at(doneOf(operation), totalOf(operation))
      if (operation.state !== 'running') return operation
      await pause(pauseMs)
      pauseMs = Math.min(maxPauseMs, pauseMs * 1.2)
      operation = await inTime(bus.operations.get(operation.id))
    }
  } finally {
    progress.end()
  }
}

function judge(output: CommandContext['output'], operation: Operation): ExitCode {
  const { id, counts, stateReason, stateBy } = operation
  const dead = counts['dead'] ?? 0
  if (operation.state === 'done') {
    if (dead === 0) return 0
    output.note(
      `${counted(dead, 'event')} became ${dead === 1 ? 'a dead letter' : 'dead letters'}. Next: ${output.command('dead-letters', 'list', '--replay', id)}`,
    )
    return 1
  }
  output.note(
    'It is ',
    state(operation.state),
    `${stateBy === undefined ? '' : ` by ${stateBy}`}${stateReason === undefined ? '' : `: ${stateReason}`}`,
  )
  if (operation.state !== 'cancelled')
    output.note(
      `Next: ${output.command('operations', 'resume', id)}, or ${output.command('operations', 'cancel', id)}`,
    )
  return 1
}
