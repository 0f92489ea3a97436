import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

export const cliMain = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))

export interface CliExit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly out: string
  readonly err: string
}

/** The environment of the tests without what names a database, and without npm, which may have started them. */
export function plainEnvironment(): Readonly<Record<string, string | undefined>> {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(?:BOSSBUS_)?DATABASE_URL$|^npm_/.test(name)),
  )
}

/** Runs the CLI in a process of its own, with nobody to ask. */
export async function runCliProcess(
  cwd: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  nodeArgs: readonly string[] = [],
): Promise<CliExit> {
  const child = spawn(process.execPath, [...nodeArgs, cliMain, ...args], {
    ...{ cwd, env: { ...plainEnvironment(), ...env } },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const written = { out: '', err: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => void (written.out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => void (written.err += text))
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (...ending) => resolve(ending))
  })
  return { code, signal, ...written }
}
