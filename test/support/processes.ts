import { spawn, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import { until } from './database.ts'

export interface ProgramProcess {
  readonly child: ChildProcess
  readonly output: string[]
  readonly exited: Promise<number | null>
  /** Resolves once the process has printed the line. */
  readonly says: (line: string) => Promise<void>
}

/** Starts a program of test/support that prints `started` when it is. Killed when the test is over, stopped or not. */
export async function startProgram(name: string, ...args: readonly string[]): Promise<ProgramProcess> {
  const program = fileURLToPath(new URL(name, import.meta.url))
  const child = spawn(process.execPath, [program, ...args], { stdio: ['pipe', 'pipe', 'pipe'] })
  const output: string[] = []
  child.stdin.on('error', () => {})
  child.stdout.on('data', (chunk: Buffer) => output.push(...chunk.toString().trim().split('\n')))
  child.stderr.on('data', (chunk: Buffer) => output.push(chunk.toString()))
  onTestFinished(() => {
    child.kill('SIGKILL')
  })
  const exited = new Promise<number | null>((resolve) => child.once('exit', resolve))
  const says = async (line: string): Promise<void> =>
    until(`the process has printed ${line}, not ${output.join()}`, () => output.includes(line), 30_000)
  await says('started')
  return { child, output, exited, says }
}
