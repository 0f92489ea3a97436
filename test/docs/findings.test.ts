import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { doctorCodes, severityOf } from '../../src/doctor/check/finding.ts'
import { createFinding } from '../../src/health/finding.ts'
import { findingCodes } from '../../src/index.ts'

/** The findings that a page of the guide explains, in its order, with their severities. */
async function readExplained(page: string): Promise<readonly string[]> {
  const text = await readFile(new URL(`../../docs/guide/${page}`, import.meta.url), 'utf8')
  const [, section = ''] = text.split('## Findings\n')
  const [own = ''] = section.split('\n## ')
  const rows = own
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.split('|').map((cell) => cell.trim()))
  for (const [, , , meaning = '', remedy = ''] of rows) {
    expect(meaning).toMatch(/^[A-Z`].{15,}\.$/)
    expect(remedy).toMatch(/^[A-Z`].{5,}\.$/)
  }
  return rows.map(([, code, severity]) => `${code} ${severity}`)
}

test('docs/guide/health.md explains every finding, in the order of the code, with its severity', async () => {
  expect(await readExplained('health.md')).toEqual(
    findingCodes.map((code) => `\`${code}\` ${createFinding(code, '').severity}`),
  )
})

test('docs/guide/doctor.md explains every finding that the doctor alone makes, with its severity', async () => {
  expect((await readExplained('doctor.md')).toSorted()).toEqual(
    doctorCodes.map((code) => `\`${code}\` ${severityOf(code)}`).toSorted(),
  )
})

test('no finding of the doctor has the code of another one of bus.health()', () => {
  expect(doctorCodes.filter((code) => (findingCodes as readonly string[]).includes(code))).toEqual([])
  expect(new Set(doctorCodes).size).toBe(doctorCodes.length)
})

test('each finding of the doctor is planted in a test', async () => {
  const files = ['schema', 'server', 'roles', 'connection', 'data', 'databases']
  const texts = await Promise.all(
    files.map(async (name) => readFile(new URL(`../doctor/${name}.test.ts`, import.meta.url), 'utf8')),
  )
  const all = texts.join('\n')
  expect(doctorCodes.filter((code) => !all.includes(`'${code}'`))).toEqual([])
})
