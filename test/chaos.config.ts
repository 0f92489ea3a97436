import { defineConfig, mergeConfig } from 'vitest/config'
import base from './vitest.config.ts'

/** The tests of test/chaos in their full size, one file at a time. */
export default mergeConfig(
  base,
  defineConfig({
    test: {
      env: { BOSSBUS_CHAOS: 'full' },
      fileParallelism: false,
      isolate: true,
      globalSetup: ['test/support/figures-table.ts'],
    },
  }),
)
