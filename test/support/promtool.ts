import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'

/** Debian's package `prometheus` has it. Undefined where there is none. */
export const promtoolPath = [
  '/usr/bin/promtool',
  '/usr/local/bin/promtool',
  '/opt/homebrew/bin/promtool',
].find((path) => existsSync(path))

/** Runs promtool, and gives its exit code and everything that it has written. */
export async function runPromtool(
  args: readonly string[],
  input = '',
): Promise<{ readonly code: number | null; readonly output: string }> {
  const child = spawn(promtoolPath ?? 'promtool', args, { stdio: 'pipe' })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      output += chunk.toString()
    })
  child.stdin.end(input)
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  return { code, output }
}
