import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { faultPoints } from '../../src/foundation/fault-points.ts'

const page = await readFile(new URL('../../docs/guarantees.md', import.meta.url), 'utf8')

/** The names in the first column of the tables of steps. */
const named = page
  .split('\n')
  .filter((line) => /^\| *`/.test(line))
  .flatMap((line) => [...(line.split('|')[1] ?? '').matchAll(/`([^`]+)`/g)].map(([, name = '']) => name))

test('docs/guarantees.md says once of each fault point what a crash there does, and of no other', () => {
  expect([...new Set(named)]).toEqual(named)
  expect(new Set(named)).toEqual(new Set<string>(faultPoints))
})
