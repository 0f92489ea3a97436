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

/** Runs the CLI in this process. */
export async function runCli(
  cwd: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<CliResult> {
  const [out, err]: [string[], string[]] = [[], []]
  const code = await run({
    ...{ args, env, cwd },
    print: (text) => void out.push(text),
    note: (text) => void err.push(text),
  })
  return { code, out: out.join('\n'), err: err.join('\n') }
}
