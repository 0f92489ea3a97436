import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, inject, test } from 'vitest'

test('buses for tests and the crash kit work under node:test, and leave nothing that keeps the process alive', async () => {
  const program = fileURLToPath(new URL('../support/node-test-program.ts', import.meta.url))
  const { VITEST: _vitest, NODE_OPTIONS: _options, ...env } = process.env
  const { stdout } = await promisify(execFile)(process.execPath, ['--test', program], {
    env: { ...env, DATABASE_URL: inject('serverUrl') },
    timeout: 80_000,
  })
  expect(stdout).toMatch(/pass 2\n[^]*fail 0\n/)
})
