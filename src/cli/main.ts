#!/usr/bin/env node
/**
 * The command `bossbus`.
 *
 * @module
 */
import { assertNodeVersion } from '../foundation/node-version.ts'
import { createInterruption } from './interruption.ts'
import type { TextStream } from './output/streams.ts'

// `bossbus … | head`: nobody reads on.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 2))
process.stderr.on('error', () => {})

const code = await main()
// What the configuration has opened must not keep the process alive. A pipe may still have to take what was written.
process.stdout.write('', () => process.stderr.write('', () => process.exit(code)))

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
  const { interruption, hearKeys } = createInterruption()
  return run({
    args: process.argv.slice(2),
    env: process.env,
    cwd: process.cwd(),
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
    write: (text) => void stream.write(text),
    isTerminal: stream.isTTY === true,
    get columns() {
      return stream.columns ?? 80
    },
    get rows() {
      return stream.rows
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
