import { readdir, readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import * as bossbus from '../../src/index.ts'

interface Row {
  readonly code: string
  readonly className: string
  readonly retryable: string
  readonly when: string
  readonly remedy: string
}

const sourceFolder = new URL('../../src/', import.meta.url)

async function readTable(): Promise<Row[]> {
  const page = await readFile(new URL('../../docs/errors.md', import.meta.url), 'utf8')
  return page
    .split('\n')
    .filter((line) => /^\| *`BUS_/.test(line))
    .map((line) => {
      const [code = '', className = '', retryable = '', when = '', remedy = ''] = line
        .split(/(?<!\\)\|/)
        .slice(1, -1)
        .map((cell) => cell.trim())
      return {
        code: code.replaceAll('`', ''),
        className: className.replaceAll('`', ''),
        retryable,
        when,
        remedy,
      }
    })
}

async function readPages(folder: URL, ending: string): Promise<ReadonlyMap<string, string>> {
  const files = (await readdir(folder, { recursive: true })).filter((file) => file.endsWith(ending))
  return new Map(
    await Promise.all(
      files.map(async (file) => [file, await readFile(new URL(file, folder), 'utf8')] as const),
    ),
  )
}

const codesIn = (text: string): readonly string[] => text.match(/\bBUS_[A-Z_]*[A-Z]\b/g) ?? []

test('docs/errors.md lists each code of the bus once, in the order of the code, and says all there is to say', async () => {
  const table = await readTable()
  expect(table.map(({ code }) => code)).toEqual([...bossbus.busErrorCodes])
  const lacking = table.filter(({ className, retryable, when, remedy }) => {
    const exported = (bossbus as Readonly<Record<string, unknown>>)[className]
    const isError =
      typeof exported === 'function' &&
      (exported as typeof bossbus.BusError).prototype instanceof bossbus.BusError
    // A sentence of some words each.
    const isSaid = /^\S+ \S+ .*\S\.$/.test(when) && /^\S+ \S+.*\S\.$/.test(remedy)
    return !isError || !['Yes', 'No', 'Depends'].includes(retryable) || !isSaid
  })
  expect(lacking).toEqual([])
})

test('the code uses every code, and the documents none that there is not', async () => {
  const sources = [...(await readPages(sourceFolder, '.ts')).values()].join('\n')
  const used = new Set(codesIn(sources.replace(/export const busErrorCodes = \[[^\]]*\]/, '')))
  expect([...used].toSorted()).toEqual(bossbus.busErrorCodes.toSorted())
  const pages = await readPages(new URL('../../docs/', import.meta.url), '.md')
  const unknown = [...pages].flatMap(([page, text]) =>
    codesIn(text)
      .filter((code) => !used.has(code))
      .map((code) => `${page}: ${code}`),
  )
  expect(unknown).toEqual([])
  expect(new Set([...pages.values()].flatMap(codesIn)).size).toBe(used.size)
})
