import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { findingCodes } from '../../src/index.ts'
import { createFinding } from '../../src/health/finding.ts'

test('docs/guide/health.md explains every finding, in the order of the code, with its severity', async () => {
  const page = await readFile(new URL('../../docs/guide/health.md', import.meta.url), 'utf8')
  const [, section = ''] = page.split('## Findings\n')
  const [own = ''] = section.split('\n## ')
  const rows = own
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.split('|').map((cell) => cell.trim()))
  expect(rows.map(([, code, severity]) => [code, severity])).toEqual(
    findingCodes.map((code) => [`\`${code}\``, createFinding(code, '').severity]),
  )
  for (const [, , , meaning = '', remedy = ''] of rows) {
    expect(meaning).toMatch(/^[A-Z`].{15,}\.$/)
    expect(remedy).toMatch(/^[A-Z`].{5,}\.$/)
  }
})
