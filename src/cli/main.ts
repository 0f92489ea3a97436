#!/usr/bin/env node
/**
 * The command `bossbus`.
 *
 * @module
 */
import { assertNodeVersion } from '../foundation/node-version.ts'

process.exitCode = await main()

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
  return run({
    args: process.argv.slice(2),
    env: process.env,
    cwd: process.cwd(),
    print: (text) => void process.stdout.write(`${text}\n`),
    note: (text) => void process.stderr.write(`${text}\n`),
  })
}
