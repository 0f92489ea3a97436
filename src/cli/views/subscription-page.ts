import type { SubscriptionInfo } from '../../delivery/operator/subscription-info.ts'
import { count, duration, isoTime } from '../output/cells.ts'
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

/** `maxAttempts 16, delaySeconds 5 s, backoff true` */
function partsText(options: object): string {
  return Object.entries(options)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]: [string, unknown]) => {
      if (typeof value === 'number')
        return `${name} ${name.endsWith('Seconds') ? duration(value * 1000) : count(value)}`
      return `${name} ${typeof value === 'string' ? value : jsonText(value)}`
    })
    .join(', ')
}

/** What is set in the place of options of the code, until when and by whom. Undefined if nothing is. */
export function overridesText(overrides: SubscriptionInfo['overrides']): string | undefined {
  if (overrides === undefined) return undefined
  const { by, reason, at, expiresAt, ...options } = overrides
  return `${partsText(options)} until ${isoTime(expiresAt)}, by ${by} at ${isoTime(at)}${reason === undefined ? '' : ` (${reason})`}`
}

function writeOptions(output: Output, options: object): void {
  for (const [name, value] of Object.entries(options) as [string, unknown][])
    if (value !== undefined)
      output.line(
        quiet(name.padEnd(Math.max(16, name.length + 2))),
        name.endsWith('Seconds') && typeof value === 'number'
          ? duration(value * 1000)
          : typeof value === 'string'
            ? value
            : value !== null && typeof value === 'object' && !Array.isArray(value)
              ? partsText(value)
              : jsonText(value),
      )
}
