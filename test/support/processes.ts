import { spawn, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import { until } from './database.ts'
import { seed } from './random.ts'

export interface ProgramProcess {
  readonly child: ChildProcess
  readonly output: string[]
  readonly exited: Promise<number | null>
  /** Resolves once the process has printed the line. */
  readonly says: (line: string) => Promise<void>
}

const programEnv = { ...process.env, BOSSBUS_SEED: String(seed) }

/** Starts a program of test/support that prints `started` when it is. Killed when the test is over, stopped or not. */
export async function startProgram(name: string, ...args: readonly string[]): Promise<ProgramProcess> {
  const program = spawnProgram(name, args)
  await program.says('started')
  return program
}

/** A process that has loaded everything, and waits to be told to begin. */
export interface LoadedProgram extends ProgramProcess {
  readonly begin: () => void
}

/** Starts a program of test/support that prints `loaded` when it is, and begins with a line on standard input. */
export async function loadProgram(name: string, ...args: readonly string[]): Promise<LoadedProgram> {
  const program = spawnProgram(name, args)
  await program.says('loaded')
  return { ...program, begin: () => void program.child.stdin?.write('begin\n') }
}

/** Runs a program of test/support to its end. */
export async function runProgram(
  name: string,
  ...args: readonly string[]
): Promise<{ readonly output: readonly string[]; readonly exitCode: number | null }> {
  const program = spawnProgram(name, args)
  program.child.stdin?.end()
  return { exitCode: await program.exited, output: program.output }
}

function spawnProgram(name: string, args: readonly string[]): ProgramProcess {
  const program = fileURLToPath(new URL(name, import.meta.url))
  const child = spawn(process.execPath, [program, ...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: programEnv,
  })
  const output: string[] = []
  child.stdin.on('error', () => {})
  child.stdout.on('data', (chunk: Buffer) => output.push(...chunk.toString().trim().split('\n')))
  child.stderr.on('data', (chunk: Buffer) => output.push(chunk.toString()))
  onTestFinished(() => {
    child.kill('SIGKILL')
  })
  // When all that it has printed is here, too.
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve))
  const says = async (line: string): Promise<void> =>
    until(`the process has printed ${line}, not ${output.join()}`, () => output.includes(line))
  return { child, output, exited, says }
}
