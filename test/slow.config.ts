import { globSync, readFileSync } from 'node:fs'
import { defineConfig } from 'vitest/config'
import base from './vitest.config.ts'

const root = new URL('..', import.meta.url)

/**
 * vitest runs a file to learn the tags of its tests, and here each file loads its modules anew: most of the time would go into files that
 * have none. So it gets those that name the tag.
 */
const include = globSync('test/**/*.test.ts', { cwd: root }).filter((file) =>
  /@module-tag slow|tags[^]{0,200}'slow'/.test(readFileSync(new URL(file, root), 'utf8')),
)

/** The tests that take long, of which some need a process of their own. */
export default defineConfig({ ...base, test: { ...base.test, include, isolate: true, maxWorkers: 3 } })
