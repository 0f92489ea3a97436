import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'

declare module 'vitest' {
  interface ProvidedContext {
    /** Where the chaos tests write their figures, one JSON object a line. */
    figuresFile: string
  }
}

/** Prints, at the end of a run, what the tests of it have measured. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-figures-'))
  const file = join(folder, 'figures')
  project.provide('figuresFile', file)
  const startedAt = performance.now()
  return async () => {
    const text = await readFile(file, 'utf8').catch(() => '')
    await rm(folder, { recursive: true, force: true })
    const rows = text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as { fault: string; figure: string })
    const seconds = Math.round((performance.now() - startedAt) / 1000)
    console.log(
      [
        '',
        '| fault | figure |',
        '|---|---|',
        ...rows.map(({ fault, figure }) => `| ${fault} | ${figure} |`),
        '',
        `The run took ${Math.floor(seconds / 60)} min ${seconds % 60} s.`,
      ].join('\n'),
    )
  }
}
