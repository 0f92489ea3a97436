import { mkdir, readdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { createFolder } from './cli.ts'

const project = fileURLToPath(new URL('../..', import.meta.url))

/** A folder in which everything is installed, bossbus as it is here in the source. */
export async function createServiceFolder(without: readonly string[] = []): Promise<string> {
  const folder = await createFolder()
  const modules = join(folder, 'node_modules')
  await mkdir(join(modules, 'bossbus'), { recursive: true })
  for (const name of await readdir(join(project, 'node_modules')))
    if (!without.includes(name)) await symlink(join(project, 'node_modules', name), join(modules, name))
  const faces = { '.': 'src/index.ts', './fastify': 'src/fastify/index.ts' }
  const exports: Record<string, object> = {}
  for (const [face, path] of Object.entries(faces)) {
    const name = face === '.' ? 'index' : face.slice(2)
    const source = join(project, path)
    await writeFile(
      join(modules, 'bossbus', `${name}.js`),
      `export * from ${JSON.stringify(pathToFileURL(source).href)}\n`,
    )
    await writeFile(join(modules, 'bossbus', `${name}.d.ts`), `export * from ${JSON.stringify(source)}\n`)
    exports[face] = { types: `./${name}.d.ts`, default: `./${name}.js` }
  }
  await writeFile(
    join(modules, 'bossbus', 'package.json'),
    JSON.stringify({ name: 'bossbus', version: '0.1.0', type: 'module', exports }),
  )
  return folder
}
