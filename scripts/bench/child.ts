import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** What a child process of the benchmark reports beside its result. */
interface ChildReport<T> {
  readonly result: T
  /** The most memory the process had resident, in bytes. */
  readonly maxRssBytes: number
}

/** Runs a program of this folder in a process of its own, with a fresh heap, and gives the JSON it printed last. */
export async function runChild<T>(
  program: string,
  task: unknown,
  timeoutMs = 600_000,
): Promise<ChildReport<T>> {
  const child = spawn(
    process.execPath,
    [fileURLToPath(new URL(program, import.meta.url)), JSON.stringify(task)],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString()
  })
  const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs)
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  clearTimeout(timer)
  if (code !== 0)
    throw new Error(`${program} ${JSON.stringify(task)} ended with ${String(code)}: ${output.slice(-2000)}`)
  return JSON.parse(output.trim().split('\n').at(-1) ?? '') as ChildReport<T>
}

/** In the child: runs the work on the task given, prints the report, and ends. */
export async function reportFrom<I, O>(work: (task: I) => Promise<O>): Promise<void> {
  const result = await work(JSON.parse(process.argv[2] ?? '{}') as I)
  console.log(
    JSON.stringify({ result, maxRssBytes: process.resourceUsage().maxRSS * 1024 } satisfies ChildReport<O>),
  )
  process.exit(0)
}
