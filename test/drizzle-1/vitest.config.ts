import { defineConfig } from 'vitest/config'

/** The tests of what touches Drizzle, with 1.x in its place: for the bus and for the service alike. */
export default defineConfig({
  resolve: { alias: [{ find: /^drizzle-orm(?=$|\/)/, replacement: 'drizzle-1' }] },
  test: {
    include: [
      'test/outbox/{publish,caller-connection,cancel}.test.ts',
      'test/migrations/drizzle-tables.test.ts',
    ],
    globalSetup: ['test/support/server.ts'],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    retry: process.env['CI'] === 'true' ? 2 : 0,
    maxWorkers: 2,
  },
})
