import { existsSync } from 'node:fs'
import { defineConfig } from 'vitest/config'

const include = [
  'test/outbox/publish/publish.test.ts',
  'test/outbox/publish/cancel.test.ts',
  'test/outbox/transactions/caller-connection.test.ts',
  'test/migrations/drizzle-tables.test.ts',
]
// vitest says nothing of a path without a file while another path has one.
for (const path of include) if (!existsSync(path)) throw new Error(`There is no ${path}`)

/** The tests of what touches Drizzle, with 1.x in its place: for the bus and for the service alike. */
export default defineConfig({
  resolve: { alias: [{ find: /^drizzle-orm(?=$|\/)/, replacement: 'drizzle-1' }] },
  test: {
    include,
    tags: [{ name: 'slow' }],
    globalSetup: ['test/support/server.ts'],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    retry: process.env['CI'] === 'true' ? 2 : 0,
    isolate: false,
    maxWorkers: 2,
  },
})
