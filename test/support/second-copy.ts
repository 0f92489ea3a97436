import { cp, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { onTestFinished } from 'vitest'
import type * as ours from '../../src/index.ts'

type Package = typeof ours

const root = fileURLToPath(new URL('../..', import.meta.url))

/** Loads another copy of the package, from files of its own, as a second version in node_modules would be. */
export async function loadSecondCopy(): Promise<Package> {
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-copy-'))
  onTestFinished(async () => rm(folder, { recursive: true }))
  await cp(join(root, 'src'), join(folder, 'src'), { recursive: true })
  for (const name of ['package.json', 'drizzle'])
    await cp(join(root, name), join(folder, name), { recursive: true })
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
  return (await import(pathToFileURL(join(folder, 'src/index.ts')).href)) as Package
}
