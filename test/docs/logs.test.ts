import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { findLogCalls } from '../support/log-calls.ts'

const page = await readFile(new URL('../../docs/guide/logs.md', import.meta.url), 'utf8')

/** The rows of the tables of messages: level, message, fields, what it means. */
const rows = (page.split('## Messages\n')[1]?.split('\n## ')[0] ?? '')
  .split('\n')
  .filter((line) => /^\| (?:debug|info|warn|error) \|/.test(line))
  .map((line) => {
    const [level = '', message = '', fields = ''] = line.slice(2).split(' | ')
    return {
      level,
      // One with backticks stands between two of them.
      message: message.replace(/^(`+) ?(.*?) ?\1$/, '$2'),
      fields: [...fields.matchAll(/`(\w+)`/g)].map(([, name = '']) => name),
    }
  })

const calls = await findLogCalls()

test('docs/guide/logs.md has every line that the source logs, with its level, and no other', () => {
  const told = ({ level, message }: { readonly level: string; readonly message: string }): string =>
    `${level}: ${message}`
  expect(calls.length).toBeGreaterThan(80)
  expect(rows.map(told).toSorted()).toEqual([...new Set(calls.map(told))].toSorted())
})

test('docs/guide/logs.md names the fields of each line', async () => {
  for (const { message, fields, file } of calls) {
    const documented = rows.find((row) => row.message === message)?.fields ?? []
    expect({ message, missing: fields.filter((name) => !documented.includes(name)) }).toEqual({
      ...{ message, missing: [] },
    })
    // Those that are put together elsewhere stand in the file, at least.
    const source = await readFile(new URL(`../../src/${file}`, import.meta.url), 'utf8')
    const invented = documented.filter((name) => !fields.includes(name) && !source.includes(name))
    expect({ message, invented }).toEqual({ message, invented: [] })
  }
})

test('no field of a line has the name of a payload', () => {
  const fields = new Set(calls.flatMap((call) => call.fields))
  expect(fields.size).toBeGreaterThan(30)
  for (const name of ['payload', 'event', 'data', 'body', 'metadata']) expect(fields).not.toContain(name)
})
