import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { defineConfig } from 'vitest/config'

/** The types in test-d.ts are not among the tests: `npm run typecheck` compiles them with all else, which takes as long as all of it. */
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/server.ts'],
    // For the processes that tests start: what one has compiled, the next one loads, in half of the time.
    env: { NODE_COMPILE_CACHE: join(tmpdir(), `bossbus-compile-cache-${userInfo().uid}`) },
    // Ends what hangs. A busy machine takes four times as long as a quiet one, on which the longest test takes half a minute.
    testTimeout: 240_000,
    hookTimeout: 240_000,
    // In CI a test that failed is tried twice more, and shown as flaky: one timing on a busy machine does not hide all else.
    retry: process.env['CI'] === 'true' ? 2 : 0,
    // The files of a worker share the modules, so that each is loaded once: a test puts back what it changes.
    isolate: false,
    // On one server. A worker waits for most of its time, so that two cores bear seven.
    maxWorkers: 7,
    tags: [
      {
        name: 'slow',
        description:
          'Kills processes or servers over and over, waits for long, or needs tens of thousands of events: npm run test:slow',
      },
    ],
  },
})
