import { readFile, writeFile } from 'node:fs/promises'
import { renderMarkdown, renderMarkdownHead } from './render.ts'
import type { Report } from './report.ts'

const page = new URL('../../docs/benchmarks.md', import.meta.url)
const startMark = '<!-- npm run bench -- --document writes from here'
const endMark = '<!-- to here -->'

/** Writes the tables of a run into the documentation, in place of the previous ones. */
export async function documentReport(report: Report): Promise<void> {
  const text = await readFile(page, 'utf8')
  const start = text.indexOf('\n', text.indexOf(startMark)) + 1
  const end = text.indexOf(endMark)
  if (!text.includes(startMark) || end < start)
    throw new Error(`docs/benchmarks.md has no place for the tables: ${startMark} … ${endMark}`)
  const tables = [
    `Measured on ${report.startedAt.slice(0, 10)}, ${report.durationSeconds} s in all.`,
    renderMarkdownHead(report),
    ...report.workloads.map(renderMarkdown),
  ].join('\n\n')
  await writeFile(
    page,
    `${text.slice(0, start)}\n${tables.replaceAll(/\n{3,}/g, '\n\n').trim()}\n\n${text.slice(end)}`,
  )
}
