import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/server.ts'],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // In CI a test that failed is tried twice more, and shown as flaky: one timing on a busy machine does not hide all else.
    retry: process.env['CI'] === 'true' ? 2 : 0,
    // Two workers on one server: more only make timings noisy on small machines.
    maxWorkers: 2,
    typecheck: { enabled: true, include: ['test/**/*.test-d.ts'], tsconfig: './tsconfig.json' },
  },
})
