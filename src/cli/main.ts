#!/usr/bin/env node
/**
 * The command `bossbus`.
 *
 * @module
 */
import { run } from './run.ts'

process.exitCode = await run({
  args: process.argv.slice(2),
  env: process.env,
  cwd: process.cwd(),
  print: (text) => void process.stdout.write(`${text}\n`),
  note: (text) => void process.stderr.write(`${text}\n`),
})
