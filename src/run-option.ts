import { canary } from './events/event-type.ts'
import { describe, nearest, invalidOption } from './foundation/options.ts'
import type { Subscription } from './delivery/subscriptions/subscription.ts'

/**
 * What a process runs: `'everything'` is the relay, all subscriptions and all receivers; names are the relay and these of them;
 * `'nothing'` is none of it, for a process that only publishes.
 */
export type RunOption = 'everything' | 'nothing' | readonly string[]

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function resolveRun(given: unknown): RunOption {
  if (given === undefined) return 'everything'
  if (given === 'everything' || given === 'nothing') return given
  if (Array.isArray(given) && given.length > 0 && given.every((name) => typeof name === 'string'))
    return Object.freeze([...(given as readonly string[])])
  throw invalidOption(
    `Expected \`run\` to be 'everything', 'nothing' or a list of names of subscriptions, got ${Array.isArray(given) && given.length === 0 ? 'an empty list' : describe(given)}`,
    'run',
  )
}

/**
 * The subscriptions of a bus that its process runs.
 * @param receivers - names of receivers, which `run` may list too
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` if one of the names is not subscribed
 */
export function chosenOf(
  subscriptions: readonly Subscription[],
  run: RunOption,
  receivers: readonly string[],
): readonly Subscription[] {
  if (run === 'everything') return subscriptions
  if (run === 'nothing') return []
  const known = [...subscriptions.map(({ name }) => name), ...receivers]
  for (const name of run) {
    if (known.includes(name)) continue
    const near = nearest(name, known)
    const hint =
      near === undefined ? `Subscribed are: ${known.join(', ') || 'none'}` : `Did you mean \`${near}\`?`
    throw invalidOption(
      `Expected \`run\` to name subscriptions of this bus, got ${describe(name)}. ${hint}`,
      'run',
    )
  }
  return subscriptions.filter(({ name }) => run.includes(name) || name === canary.subscription)
}
