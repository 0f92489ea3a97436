import { defineConfig } from 'vitest/config'

/** The long forms of the chaos tests, one after the other. */
export default defineConfig({
  test: {
    include: ['test/chaos/**/*.test.ts'],
    globalSetup: ['test/support/server.ts'],
    env: { CHAOS: 'full' },
    testTimeout: 600_000,
    hookTimeout: 60_000,
    fileParallelism: false,
    disableConsoleIntercept: true,
  },
})
