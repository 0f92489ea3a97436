import type { CommandEntry } from '../command/command.ts'
import type { Flags } from '../command/flags.ts'
import { globalFlags } from '../command/global-flags.ts'

/** What shells complete: static, so that pressing a key starts no process. */
export interface CompletionTree {
  readonly commands: readonly CompletedCommand[]
  /** Options of every command. */
  readonly globalFlags: readonly CompletedFlag[]
}

interface CompletedCommand {
  readonly name: string
  readonly summary: string
  readonly flags: readonly CompletedFlag[]
  /** What its first argument may be. */
  readonly words: readonly string[]
}

export interface CompletedFlag {
  /** Without the dashes. */
  readonly name: string
  readonly help: string
  readonly value: 'none' | 'any' | 'file' | readonly string[]
}

export async function readCompletionTree(entries: readonly CommandEntry[]): Promise<CompletionTree> {
  return {
    commands: await Promise.all(
      entries.map(async ({ name, summary, load }) => {
        const { flags, args } = await load()
        return {
          ...{ name, summary, words: Object.values(args)[0]?.choices ?? [] },
          flags: completedFlags({ ...flags, ...globalFlags }),
        }
      }),
    ),
    globalFlags: completedFlags(globalFlags),
  }
}

function completedFlags(flags: Flags): readonly CompletedFlag[] {
  return Object.entries(flags).map(([name, { hint, help, choices }]) => ({
    name,
    help: help.split('\n')[0] ?? '',
    value: choices ?? (hint === undefined ? 'none' : /<file>/.test(hint) ? 'file' : 'any'),
  }))
}

/** Words that may follow the words typed so far, which are none or the first word of a command, with what they mean. */
export interface NextWords {
  readonly after: string
  readonly words: readonly (readonly [word: string, help: string])[]
}

export function nextWords({ commands }: CompletionTree): readonly NextWords[] {
  const groups = new Map<string, Map<string, string>>()
  for (const { name, summary, words } of commands) {
    const [first = '', second] = name.split(' ')
    const add = (after: string, word: string, help: string): void => {
      const group = groups.get(after) ?? new Map<string, string>()
      group.set(word, group.get(word) ?? help)
      groups.set(after, group)
    }
    add('', first, second === undefined ? summary : `${first} …`)
    if (second !== undefined) add(first, second, summary)
    for (const word of words) add(name, word, '')
  }
  return [...groups].map(([after, words]) => ({ after, words: [...words] }))
}
