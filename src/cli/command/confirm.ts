import { visible } from '../output/visible-text.ts'
import { optionOf } from '../output/command-line.ts'
import { Declined, UsageError } from './usage-error.ts'

/** What a person is asked before a change. A command that can be undone asks nothing. */
export interface Question {
  /** What will be done, as a sentence with its numbers: `Redrive 1,284 dead letters in ledger`. */
  readonly what: string
  /**
   * For what cannot be undone: the name to be typed, such as that of the subscription. `--confirm <name>` answers it; `--yes` does not.
   * Undefined: y/N, which `--yes` answers.
   */
  readonly name?: string | undefined
}

export interface ConfirmParts {
  readonly isYes: boolean
  readonly confirmed: string | undefined
  /** Asks on the terminal; undefined if there is no answer. Undefined as a whole if nobody is there to ask. */
  readonly ask: ((question: string) => Promise<string | undefined>) | undefined
}

/** @throws a {@link Declined} if the answer is no; a {@link UsageError} if nobody can be asked */
export async function confirm(
  { what, name }: Question,
  { isYes, confirmed, ask }: ConfirmParts,
): Promise<void> {
  if (name === undefined ? isYes : confirmed === name) return
  if (name !== undefined && confirmed !== undefined)
    throw new UsageError(
      `Expected ${optionOf('--confirm', name)}, got ${visible(confirmed)}. Nothing was changed`,
    )
  if (ask === undefined)
    throw new UsageError(
      `${visible(what)}? Nobody can be asked here, and nothing was changed: ${
        name === undefined ? 'use --yes' : `use ${optionOf('--confirm', name)}`
      }, or --dry-run to see more`,
    )
  const answer = await ask(
    name === undefined
      ? `${visible(what)}? [y/N] `
      : `${visible(what)}? This cannot be undone. Type ${visible(name)} to go on: `,
  )
  const isAgreed =
    name === undefined ? /^y(?:es)?$/i.test(answer?.trim() ?? '') : answer?.trim() === name.trim()
  if (!isAgreed) throw new Declined('Nothing was changed.')
}
