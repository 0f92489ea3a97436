import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import { run } from '../../src/cli/run.ts'

export interface CliResult {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** An empty folder for a configuration, gone when the test is over. */
export async function createFolder(files: Readonly<Record<string, string>> = {}): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-cli-'))
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text)
  return folder
}

/** A configuration for the tests: what stands in for `events` may use `z` and `same`. */
export function configText(events: string, rest = ''): string {
  const path = (file: string): string => fileURLToPath(new URL(`../../${file}`, import.meta.url))
  return `
import { defineEvents } from ${JSON.stringify(path('src/index.ts'))}
import { z } from ${JSON.stringify(path('node_modules/zod/index.js'))}
const same = (payload: unknown): unknown => payload
export default { source: 'payment-service', ${rest} events: defineEvents(${events}) }
`
}

/** Who sits before the command line. */
export interface Person {
  /** The width of the terminal. Undefined: the output goes to a program. */
  readonly columns?: number
  /** What is typed at questions, in their order. Undefined: nobody can be asked. */
  readonly answers?: readonly string[]
  /** The height of the terminal. */
  readonly rows?: number
  /** Ctrl-C. */
  readonly signal?: AbortSignal
  /** Standard input. */
  readonly input?: string
  /** Receives what types keys. */
  readonly onKeys?: (press: (key: string) => void) => void
  /** Hears everything that is written, as it is. */
  readonly onWrite?: (name: 'out' | 'err', text: string) => void
}

/** What is left on a terminal: lines that the progress of slow work has drawn and taken away again are gone. */
const remaining = (text: string): string =>
  text
    .split('\n')
    .map((line) => line.split('\r\u{1b}[K').at(-1) ?? '')
    .join('\n')

/**
 * Runs the CLI in this process. Lines end with a line feed; the last one of each stream is left out. On a terminal `err` is what is left at
 * the end; `onWrite` hears all of it.
 */
export async function runCli(
  cwd: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  { columns, rows, answers, signal = new AbortController().signal, input = '', onKeys, onWrite }: Person = {},
): Promise<CliResult> {
  const written = { out: '', err: '' }
  const left = [...(answers ?? [])]
  const stream = (name: 'out' | 'err'): Parameters<typeof run>[0]['stdout'] => ({
    write(text) {
      written[name] += text
      onWrite?.(name, text)
    },
    isTerminal: columns !== undefined,
    columns: columns ?? 80,
    rows,
  })
  const code = await run({
    ...{ args, env, cwd, stdout: stream('out'), stderr: stream('err') },
    ask:
      answers === undefined
        ? undefined
        : async (question) => {
            written.err += question
            return left.shift()
          },
    interruption: () => signal,
    input: async () => input,
    keys:
      onKeys === undefined
        ? undefined
        : (listener) => {
            onKeys(listener)
            return () => {}
          },
  })
  return { code, out: written.out.replace(/\n$/, ''), err: remaining(written.err).replace(/\n$/, '') }
}
