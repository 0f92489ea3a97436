import type { Bus } from '../../bus-interface.ts'
import type { DeadLetterSelection } from '../../operations/dead-letters/selection.ts'
import { conditionsOf, type deadLetterFlags } from '../command/dead-letter-flags.ts'
import type { ValuesOf } from '../command/flags.ts'
import { UsageError } from '../command/usage-error.ts'
import type { Output } from '../output/output.ts'
import { resolveGroup } from './resolve-group.ts'
import { findEventId } from './find-event-id.ts'

/** Who is asked for the dead letters of events that are named without their subscription. */
interface LetterName {
  readonly id: string
  readonly subscription: string
}

/**
 * The dead letter of an event. Undefined, with a note, if the event is not in the log, or is no dead letter.
 * @throws a {@link UsageError} if it is one of several subscriptions, and none is given
 */
export async function findLetter(
  bus: Bus,
  output: Output,
  text: string,
  subscription: string | undefined,
): Promise<LetterName | undefined> {
  const id = await findEventId(bus, text, output)
  if (id === undefined) return undefined
  if (subscription !== undefined) return { id, subscription }
  const dead = (await bus.deliveries(id)).filter(({ state }) => state === 'dead')
  const [first] = dead
  if (first === undefined) {
    output.note(`${text} is no dead letter. Next: ${output.command('explain', id)}`)
    return undefined
  }
  if (dead.length > 1)
    throw new UsageError(
      `${id} is a dead letter of ${dead.map((each) => each.subscription).join(', ')}: say of which one`,
    )
  return { id, subscription: first.subscription }
}

/** What selects dead letters: ids, flags, or all of them. */
interface LetterFlags extends ValuesOf<typeof deadLetterFlags> {
  readonly type: readonly string[]
  readonly all: boolean
}

/**
 * Which dead letters are meant. Undefined, with a note, if one that is named is not there.
 * @throws a {@link UsageError} if nothing is selected, or ids of several subscriptions
 */
export async function selectLetters(
  bus: Bus,
  output: Output,
  ids: readonly string[],
  flags: LetterFlags,
): Promise<DeadLetterSelection | undefined> {
  const type = flags.type.length === 0 ? undefined : flags.type
  const group = await resolveGroup(bus, flags.group, output.command('dead-letters', 'groups'))
  const conditions = { ...conditionsOf({ ...flags, group }), type }
  if (ids.length === 0) return flags.all ? { from: new Date(0), ...defined(conditions) } : conditions
  const letters: LetterName[] = []
  for (const text of ids) {
    const letter = await findLetter(bus, output, text, flags.subscription)
    if (letter === undefined) return undefined
    letters.push(letter)
  }
  const names = new Set(letters.map(({ subscription }) => subscription))
  if (names.size > 1)
    throw new UsageError(`These are dead letters of ${[...names].join(', ')}: name those of one at a time`)
  return { ...conditions, subscription: [...names][0], ids: letters.map(({ id }) => id) }
}

/** @throws a {@link UsageError} if neither ids nor a condition nor `--all` is given */
export function requireSelection(ids: readonly string[], flags: LetterFlags): void {
  const isFiltered = flags.type.length > 0 || Object.keys(defined(conditionsOf(flags))).length > 0
  if (ids.length === 0 && !isFiltered && !flags.all)
    throw new UsageError('Say which dead letters: ids, --group, --subscription or another filter, or --all')
  if (ids.length > 0 && flags.all) throw new UsageError('Give either ids or --all')
}

function defined<T extends object>(value: T): Partial<T> {
  return Object.fromEntries(Object.entries(value).filter(([, each]) => each !== undefined)) as Partial<T>
}
