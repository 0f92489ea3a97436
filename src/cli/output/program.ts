import { sep } from 'node:path'

type Environment = Readonly<Record<string, string | undefined>>

/** A fact of the process. Set once, by the run of the command line, so that whatever suggests a command can say it. */
let name: 'bossbus' | 'npx bossbus' = 'bossbus'

/** Variables that npm, and what takes its place, set for what they start. */
const ofPackageManagers = ['npm_command', 'npm_execpath', 'npm_lifecycle_event', 'npm_lifecycle_script']

/**
 * Decides how a person calls the command line: by `npx` if it was started so, or is installed in the folder or in one above it, where a shell
 * does not find it by its name.
 *
 * @param path - of the program that runs. Undefined: unknown
 */
export function nameProgram(env: Environment, cwd: string, path: string | undefined): void {
  name = isByPackageManager(env) || isInstalledFor(cwd, path) ? 'npx bossbus' : 'bossbus'
}

/** What a suggested command begins with. */
export function program(): string {
  return name
}

/** A text of the library, which says `npx bossbus …`, with the commands in it as they are called here. */
export function asCalled(text: string): string {
  return text.replaceAll('npx bossbus ', `${name} `)
}

export function isByPackageManager(env: Environment): boolean {
  return ofPackageManagers.some((each) => (env[each] ?? '') !== '')
}

function isInstalledFor(cwd: string, path: string | undefined): boolean {
  const at = path?.lastIndexOf(`${sep}node_modules${sep}`) ?? -1
  if (path === undefined || at === -1) return false
  const folder = path.slice(0, at)
  return cwd === folder || cwd.startsWith(`${folder}${sep}`)
}
