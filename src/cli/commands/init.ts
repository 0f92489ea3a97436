import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { version } from '../../foundation/version.ts'
import { defineCommand, type CommandContext } from '../command/command.ts'
import { choice, text, toggle } from '../command/flags.ts'
import { UsageError } from '../command/usage-error.ts'
import { green, quiet } from '../output/styled.ts'
import { completePackage, type PackageJson } from '../project/package-json.ts'
import { configNames } from '../command/config.ts'
import {
  extensionOf,
  projectFiles,
  tsconfigText,
  type ProjectFile,
  type ProjectKind,
} from '../project/project-files.ts'

const flags = {
  folder: text('<name>', 'The folder of the code (src)'),
  source: text('<name>', 'The name of the service (that of package.json, or of this folder)'),
  language: choice(['typescript', 'javascript'], 'The language (what the project uses)'),
  'dry-run': toggle('Only says what would be written'),
} as const

/** What is done to a file. */
interface Step {
  readonly path: string
  readonly what: 'created' | 'overwritten' | 'changed' | 'unchanged'
  readonly text: string
  readonly detail: string | undefined
}

export const init = defineCommand({
  examples: [
    ['init', 'in an empty folder: a service that runs; in a project: what it lacks'],
    ['init --folder src/orders', 'beside code that is there'],
  ],
  notes: [
    'Writes bossbus.config, an event, a subscription, a function that publishes in a transaction, and a service on Fastify. Adds scripts and\npackages to package.json, and changes none that are there. A file that exists is overwritten only if a person says so: --yes does not.',
  ],
  flags,
  isLong: true,
  async run(context) {
    const { output, flags: given } = context
    const steps = await plan(context)
    const overwritten = steps.filter(({ what }) => what === 'overwritten').map(({ path }) => path)
    if (overwritten.length > 0 && !given['dry-run']) {
      const files = overwritten.join(', ')
      const differ = overwritten.length === 1 ? 'exists and differs' : 'exist and differ'
      if (context.isYes)
        throw new UsageError(
          `${files} ${differ}, and --yes overwrites nothing. Nothing was written: choose another --folder, move them away, or leave --yes out to be asked`,
        )
      if (!context.isInteractive)
        throw new UsageError(
          `${files} ${differ}. Nobody can be asked here, and nothing was written: choose another --folder, move them away, or run it at a terminal`,
        )
      await context.confirm({ what: `Overwrite ${files}` })
    }
    if (!given['dry-run'])
      for (const { path, what, text: content } of steps) {
        if (what === 'unchanged') continue
        const file = join(context.cwd, path)
        await mkdir(dirname(file), { recursive: true })
        await writeFile(file, content)
      }
    const files = steps.map(({ path, what, detail }) => ({ path, what, detail }))
    output.object({ files, dryRun: given['dry-run'] }, () => {
      for (const { path, what, detail } of files)
        output.line(
          what === 'unchanged' ? quiet(what) : green(given['dry-run'] ? `would be ${what}` : what),
          `  ${path}`,
          quiet(detail === undefined ? '' : `  ${detail}`),
        )
    })
    if (!given['dry-run']) writeNext(context)
    return 0
  },
})

type Context = CommandContext<typeof flags>

async function plan(context: Context): Promise<readonly Step[]> {
  const { cwd, flags: given } = context
  const packageText = await read(cwd, 'package.json')
  const found = packageText === undefined ? undefined : parsePackage(packageText)
  const kind = kindOf(cwd, found, given)
  refuseSecondConfiguration(cwd, kind)
  warnOfProject(context, found, kind)
  const completed = completePackage(found, packageText, kind, version)
  const steps = await Promise.all(projectFiles(kind).map(async (file) => stepFor(cwd, file)))
  steps.push({
    path: 'package.json',
    what: packageText === undefined ? 'created' : completed.added.length > 0 ? 'changed' : 'unchanged',
    text: completed.text,
    detail:
      packageText === undefined
        ? undefined
        : completed.added.map((each) => `+ ${each}`).join('; ') || undefined,
  })
  if (kind.isTypeScript) {
    const tsconfig = await read(cwd, 'tsconfig.json')
    if (tsconfig === undefined)
      steps.push(await stepFor(cwd, { path: 'tsconfig.json', text: tsconfigText(kind) }))
    else if (!/allowImportingTsExtensions|rewriteRelativeImportExtensions/.test(tsconfig))
      context.output.note(
        'tsconfig.json: the files import each other as .ts, as Node runs them. Add "allowImportingTsExtensions": true.',
      )
  }
  const ignored = await read(cwd, '.gitignore')
  const missing = ['node_modules/', '.bossbus/'].filter(
    (line) =>
      !(ignored ?? '').split(/\r?\n/).some((each) => each.replaceAll('/', '') === line.replaceAll('/', '')),
  )
  if (missing.length > 0)
    steps.push({
      path: '.gitignore',
      what: ignored === undefined ? 'created' : 'changed',
      text: `${ignored === undefined || ignored === '' ? '' : ignored.replace(/\n?$/, '\n')}${missing.join('\n')}\n`,
      detail: ignored === undefined ? undefined : `+ ${missing.join(', ')}`,
    })
  return steps
}

function refuseSecondConfiguration(cwd: string, kind: ProjectKind): void {
  const wanted = `bossbus.config.${extensionOf(kind)}`
  const other = configNames.find((name) => name !== wanted && existsSync(join(cwd, name)))
  if (other !== undefined)
    throw new UsageError(
      `There is ${other} already, and ${wanted} beside it would make two configurations. Nothing was written: move it away, or choose its --language`,
    )
}

function warnOfProject(
  { output, flags: given }: Context,
  found: PackageJson | undefined,
  kind: ProjectKind,
): void {
  if (!kind.isTypeScript && given.language === undefined)
    output.note('The project uses JavaScript, and so do the files: --language typescript writes TypeScript.')
  const fastify = { ...found?.devDependencies, ...found?.dependencies }['fastify']
  if (fastify !== undefined && /^[~^=v\s]*[0-4]\b/.test(fastify))
    output.note(
      `package.json has fastify ${fastify}: the plugin of the bus, which the service uses, needs Fastify 5.`,
    )
}

async function stepFor(cwd: string, { path, text: content }: ProjectFile): Promise<Step> {
  const existing = await read(cwd, path)
  const what = existing === undefined ? 'created' : existing === content ? 'unchanged' : 'overwritten'
  return { path, what, text: content, detail: undefined }
}

function kindOf(cwd: string, found: PackageJson | undefined, given: Context['flags']): ProjectKind {
  const isModule = found === undefined || found.type === 'module'
  const packages = { ...found?.dependencies, ...found?.devDependencies }
  const usesTypeScript =
    found === undefined || existsSync(join(cwd, 'tsconfig.json')) || Object.hasOwn(packages, 'typescript')
  const folder = (given.folder ?? 'src').replaceAll('\\', '/').replace(/^\.\//, '').replace(/\/+$/, '')
  if (!/^[\w@.-]+(?:\/[\w@.-]+)*$/.test(folder) || folder.split('/').includes('..'))
    throw new UsageError(
      `Expected --folder to be a folder of this project, such as src, got ${folder.slice(0, 80)}`,
    )
  const source = given.source ?? nameOf(found?.name) ?? nameOf(basename(cwd)) ?? 'my-service'
  if (source.length > 255) throw new UsageError('Expected --source to have at most 255 characters')
  return {
    isTypeScript: given.language === undefined ? usesTypeScript : given.language === 'typescript',
    ...{ isModule, folder, source },
  }
}

/** A name for a service, and for a package, from that of a package or a folder. */
function nameOf(text: unknown): string | undefined {
  if (typeof text !== 'string') return undefined
  const name = text
    .replace(/^@[^/]*\//, '')
    .toLowerCase()
    .replaceAll(/[^a-z0-9-]+/g, '-')
    .replaceAll(/^-+|-+$/g, '')
    .slice(0, 100)
  return name === '' ? undefined : name
}

function parsePackage(content: string): PackageJson {
  try {
    const value: unknown = JSON.parse(content)
    if (value !== null && typeof value === 'object' && !Array.isArray(value)) return value as PackageJson
  } catch {
    // Said below.
  }
  throw new UsageError('package.json is not a JSON object: mend it first. Nothing was written')
}

async function read(cwd: string, path: string): Promise<string | undefined> {
  try {
    return await readFile(join(cwd, path), 'utf8')
  } catch (error) {
    if ((error as { readonly code?: string }).code === 'ENOENT') return undefined
    throw new UsageError(`${path} could not be read: ${(error as Error).message}`, { cause: error })
  }
}

function writeNext({ output, cwd, env }: Context): void {
  const agent = env['npm_config_user_agent'] ?? ''
  const manager =
    ['pnpm', 'yarn', 'bun'].find((name) => agent.startsWith(name) || existsSync(join(cwd, lockOf(name)))) ??
    'npm'
  output.note('')
  output.note('Next:')
  output.note(`  ${manager} install`)
  output.note(
    '  npx bossbus dev              # a database if you have none, your service, and its events as they happen',
  )
  output.note(
    `  npx bossbus events publish order.placed --tenant acme --payload '{"orderId":"1","totalCents":100}' --wait`,
  )
}

const lockOf = (manager: string): string =>
  manager === 'bun' ? 'bun.lock' : manager === 'pnpm' ? 'pnpm-lock.yaml' : 'yarn.lock'
