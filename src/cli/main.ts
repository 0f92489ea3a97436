#!/usr/bin/env node
/**
 * The command `bossbus`.
 *
 * @module
 */
import { Console } from 'node:console'
import { assertNodeVersion } from '../foundation/node-version.ts'
import { createInterruption } from './interruption.ts'
import type { TextStream } from './output/streams.ts'

const usualColumns = 80
const interruptions = createInterruption()
let isRead = true
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') process.exit(2)
  // `bossbus … | head`: nobody reads on. What follows something ends, and the rest is done all the same: its exit code is true.
  isRead = false
  interruptions.end()
})
process.stderr.on('error', () => {})
// The configuration may log, as the code of a service does: standard output is for the result alone.
globalThis.console = new Console(process.stderr)

const code = await main()
// What the configuration has opened must not keep the process alive. A pipe may still have to take what was written.
if (isRead) process.stdout.write('', () => process.stderr.write('', () => process.exit(code)))
else process.stderr.write('', () => process.exit(code))

/** Loads the command only after the Node version has been checked. */
async function main(): Promise<number> {
  try {
    assertNodeVersion()
  } catch (error) {
    const { code, message } = error as { readonly code: string; readonly message: string }
    process.stderr.write(`${code}: ${message}\n`)
    return 2
  }
  const { run } = await import('./run.ts')
  const { interruption, hearKeys } = interruptions
  return run({
    args: process.argv.slice(2),
    env: process.env,
    cwd: process.cwd(),
    path: process.argv[1],
    stdout: toStream(process.stdout),
    stderr: toStream(process.stderr),
    ask: process.stdin.isTTY && process.stderr.isTTY ? ask : undefined,
    interruption,
    input,
    keys: process.stdin.isTTY && process.stdout.isTTY ? hearKeys : undefined,
  })
}

async function input(): Promise<string> {
  const { text } = await import('node:stream/consumers')
  return text(process.stdin)
}

/** Node's types say that every stream is a terminal. */
interface Writable {
  readonly write: (text: string) => boolean
  readonly isTTY?: boolean
  readonly columns?: number
  readonly rows?: number
  readonly on: (event: 'resize', listener: () => void) => unknown
  readonly off: (event: 'resize', listener: () => void) => unknown
}

function toStream(stream: Writable): TextStream {
  return {
    write(text) {
      if (isRead || stream !== process.stdout) stream.write(text)
    },
    isTerminal: stream.isTTY === true,
    // Some terminals say 0: they do not know.
    get columns() {
      return stream.columns === undefined || stream.columns === 0 ? usualColumns : stream.columns
    },
    get rows() {
      return stream.rows === 0 ? undefined : stream.rows
    },
    onResize(listener) {
      stream.on('resize', listener)
      return () => void stream.off('resize', listener)
    },
  }
}

/** Asks on standard error, so that the result can go elsewhere. */
async function ask(question: string): Promise<string | undefined> {
  const { createInterface } = await import('node:readline')
  const lines = createInterface({ input: process.stdin, output: process.stderr })
  try {
    return await new Promise((resolve) => {
      lines.once('close', () => resolve(undefined))
      // Ctrl-C ends at once, as everywhere.
      lines.once('SIGINT', () => process.exit(130))
      lines.question(question, resolve)
    })
  } finally {
    lines.close()
  }
}
