import { readdir, readFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
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

/** The text of every source file but the list of codes itself. */
async function readSources(): Promise<string> {
  const files = (await readdir(sourceFolder, { recursive: true })).filter((file) => file.endsWith('.ts'))
  const texts = await Promise.all(files.map(async (file) => readFile(new URL(file, sourceFolder), 'utf8')))
  return texts.join('\n').replace(/export const busErrorCodes = \[[^\]]*\]/, '')
}

describe('docs/errors.md', async () => {
  const table = await readTable()
  const sources = await readSources()

  test('lists each code of the bus once, in the order of the code, and no other', () => {
    expect(table.map(({ code }) => code)).toEqual([...bossbus.busErrorCodes])
  })

  test.each(table)('says all there is to say of $code', ({ className, retryable, when, remedy }) => {
    const exported = (bossbus as Readonly<Record<string, unknown>>)[className]
    expect((exported as typeof bossbus.BusError).prototype).toBeInstanceOf(bossbus.BusError)
    expect(['Yes', 'No', 'Depends']).toContain(retryable)
    expect(when).toMatch(/\w.*\.$/)
    expect(remedy).toMatch(/\w.*\.$/)
  })

  test.each([...bossbus.busErrorCodes])('%s is used by the code', (code) => {
    expect(sources).toContain(`'${code}'`)
  })

  test('shows only codes that there are', () => {
    const mentioned = new Set(sources.match(/\bBUS_[A-Z_]+\b/g))
    expect(
      [...mentioned].filter((code) => !(bossbus.busErrorCodes as readonly string[]).includes(code)),
    ).toEqual([])
  })
})
