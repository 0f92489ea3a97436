import type { SubscriptionInfo } from '../../delivery/operator/subscription-info.ts'
import { duration, isoTime } from '../output/cells.ts'
import { jsonText } from '../output/json-text.ts'
import type { Output } from '../output/output.ts'
import { bold, quiet, red, state, yellow, type Piece } from '../output/styled.ts'

/** A subscription for a person: what it gets, whether it is held, and its options. */
export function writeSubscription(output: Output, info: SubscriptionInfo): void {
  output.line(bold(info.name), '  ', state(info.state))
  const facts: readonly (readonly [string, Piece | undefined])[] = [
    ['service', info.service],
    ['events', info.events.join(', ')],
    ['where', info.where],
    ['waiting', `${info.isWaitingCountPartial ? 'over ' : ''}${info.waitingCount}`],
    ['lag', lagText(info)],
    ['processes', String(info.instanceCount)],
    ['registered', isoTime(info.registeredAt)],
    [
      'not covered',
      info.uncoveredSince === undefined
        ? undefined
        : red(`events wait for another version of the code, since ${isoTime(info.uncoveredSince)}`),
    ],
    ['paused', pauseText(info)],
    [
      'circuit',
      info.circuit === undefined
        ? undefined
        : red(
            `open since ${isoTime(info.circuit.openedAt)}, next try ${isoTime(info.circuit.nextProbeAt)}: ${info.circuit.reason}`,
          ),
    ],
  ]
  for (const [name, value] of facts) if (value !== undefined) output.line(quiet(name.padEnd(16)), value)
  output.heading('Options of the code')
  writeOptions(output, info.options)
  const { overrides } = info
  if (overrides === undefined) return
  const { by, reason, at, expiresAt, ...options } = overrides
  output.heading('Set in their place')
  writeOptions(output, options)
  output.line(
    quiet('until'.padEnd(16)),
    `${isoTime(expiresAt)}, by ${by} at ${isoTime(at)}${reason === undefined ? '' : `: ${reason}`}`,
  )
}

function lagText({ lagSeconds, isBehind }: SubscriptionInfo): Piece | undefined {
  if (lagSeconds === 0) return undefined
  const text = duration(lagSeconds * 1000)
  return isBehind ? red(`${text}, more than its limit`) : text
}

function pauseText({ pause, overrides }: SubscriptionInfo): Piece | undefined {
  if (pause !== undefined)
    return yellow(
      `since ${isoTime(pause.at)}${pause.by === undefined ? '' : ` by ${pause.by}`}${pause.reason === undefined ? '' : `: ${pause.reason}`}`,
    )
  return overrides?.paused === true ? yellow(`until ${isoTime(overrides.expiresAt)}`) : undefined
}

function writeOptions(output: Output, options: object): void {
  for (const [name, value] of Object.entries(options) as [string, unknown][])
    if (value !== undefined)
      output.line(
        quiet(name.padEnd(16)),
        name.endsWith('Seconds') && typeof value === 'number'
          ? duration(value * 1000)
          : typeof value === 'string'
            ? value
            : jsonText(value),
      )
}
