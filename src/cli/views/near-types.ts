import { nearest } from '../../foundation/options.ts'
import type { CommandContext } from '../command/command.ts'

/** Says of types that the configuration does not know which ones were probably meant. Nothing without a catalogue. */
export async function noteNearTypes(
  { config, output }: Pick<CommandContext, 'config' | 'output'>,
  types: readonly string[],
): Promise<void> {
  // A catalogue that is refused is told by what needs it.
  const known = await config()
    .then(async (given) => given.events())
    .then(Object.keys)
    .catch((): string[] => [])
  for (const type of types.filter((each) => !each.includes('*') && !known.includes(each))) {
    const near = nearest(type, known)
    if (near !== undefined) output.note(`The configuration knows no type ${type}. Did you mean ${near}?`)
  }
}
