import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { busErrorCodes, limits } from '../../src/index.ts'

/** The rows of the tables: each limit, what the page says it is, and its error. */
async function readPage(): Promise<readonly (readonly [name: string, value: string, error: string])[]> {
  const page = await readFile(new URL('../../docs/limits.md', import.meta.url), 'utf8')
  return page
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => {
      const [name = '', value = '', error = ''] = line
        .split('|')
        .slice(1, 4)
        .map((cell) => cell.trim())
      return [/`([^`]+)`/.exec(name)?.[1] ?? '', value, error]
    })
}

const count = (number: number): string => number.toLocaleString('en-US')

test('docs/limits.md lists every limit of the code, with its value and its error, and no other', async () => {
  const page = await readPage()
  expect(page.map(([name]) => name).toSorted()).toEqual(Object.keys(limits).toSorted())
  for (const [name, value, error] of page) {
    const limit = limits[name as keyof typeof limits]
    const expected =
      typeof limit === 'number'
        ? count(limit)
        : `${count(limit.default)} (${count(limit.min)} to ${count(limit.max)})`
    expect([name, value]).toEqual([name, expected])
    const [, code = ''] = /`(BUS_[A-Z_]+)`/.exec(error) ?? []
    expect([name, (busErrorCodes as readonly string[]).includes(code) || error === 'SQLSTATE 23514']).toEqual(
      [name, true],
    )
  }
})
