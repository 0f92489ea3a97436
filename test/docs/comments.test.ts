import { readFile, readdir } from 'node:fs/promises'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const project = fileURLToPath(new URL('../..', import.meta.url))

/** Files that a comment names but that are a user's. */
const ofUsers = new Set(['bossbus.config.ts'])

/** Which file names in the comments of a text no file has: names of files, or paths from the project or from `src`. */
function unknownNames(text: string, files: ReadonlySet<string>): string[] {
  const names = new Set([...files].map((file) => basename(file)))
  const comments = text.split('\n').filter((line) => /^\s*(\*|\/\/|\/\*\*|--)/.test(line))
  return comments.flatMap((line) =>
    [...line.matchAll(/[\w/.-]+\.(?:ts|sql)\b/g)]
      .map(([name]) => name)
      .filter((name) => {
        if (ofUsers.has(name)) return false
        const path = name.replace(/^(\.\.?\/)+/, '')
        if (!path.includes('/')) return !names.has(path)
        return ![...files].some((file) => file === path || file.endsWith(`/${path}`))
      }),
  )
}

test('every file that a comment of the code names exists', async () => {
  const files = new Set<string>()
  for (const folder of ['src', 'test', 'scripts', 'drizzle'])
    for (const file of await readdir(`${project}${folder}`, { recursive: true }))
      files.add(`${folder}/${file}`)
  const unknown: string[] = []
  for (const file of files) {
    // What a database has applied does not change, not in a comment either.
    if (!/^src\/.*\.ts$|^drizzle\/(roles|0005_\w+)\.sql$/.test(file)) continue
    for (const name of unknownNames(await readFile(`${project}${file}`, 'utf8'), files))
      unknown.push(`${file}: ${name}`)
  }
  expect(unknown).toEqual([])
  expect(unknownNames(' * see nowhere.ts, and src/bus.ts\n// ../jobs/nothing.ts', files)).toEqual([
    'nowhere.ts',
    '../jobs/nothing.ts',
  ])
})
