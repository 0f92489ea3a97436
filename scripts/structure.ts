/**
 * The structure of the source: which folder may import which, and the sizes of its parts.
 *
 *     node scripts/structure.ts --check    fails on an import in the wrong direction, on circles of files, and on SQL that names a
 *                                          table of pg-boss outside the folder for it
 *     node scripts/structure.ts [folder]   counts files, lines, parameters and exports of `src`, or of another checkout
 */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { bossTablesFolder, bossTablesIn } from './boss-tables.ts'

/** The folders of src, bottom up. Each imports only itself and those before it. */
const layers = [
  'foundation',
  'events',
  'events/json',
  'events/cloud-events',
  'events/contracts',
  'events/compatibility/schemas',
  'events/compatibility',
  'telemetry',
  'database/configuration',
  'database',
  'migrations',
  'outbox/schema',
  'audit',
  'outbox/transactions',
  'outbox/transactions/adapters',
  'outbox/publish',
  'outbox/relay',
  'delivery/subscriptions',
  'delivery/attempts',
  'delivery/concurrency',
  'delivery/ledger',
  'delivery/jobs',
  'delivery/jobs/queue-state',
  'delivery/ordering',
  'delivery/settlement',
  'delivery/flow-control',
  'delivery/registry',
  'delivery/in-flight',
  'delivery/exactly-once',
  'delivery/routing',
  'delivery/worker',
  'delivery/maintenance',
  'delivery/operator',
  'delivery',
  'operations',
  'operations/dead-letters',
  'operations/replay',
  'retention/archive',
  'retention',
  'health',
  'telemetry/prometheus',
  'tenancy',
  'transports/sending',
  'transports/receiving',
  'transports/aws',
  'transports/http',
  'transports/kafka',
  'transports/redis',
  'transports/adapters',
  'transports',
  'doctor/check',
  'doctor/server',
  'doctor/roles',
  'doctor/schema',
  'doctor/connection',
  'doctor/data',
  'doctor',
  '.',
  'http/schemas',
  'http',
  'http/routes',
  'testing',
  'cli/output',
  'cli/command',
  'cli/views',
  'cli/follow',
  'cli/completion',
  'cli/mcp',
  'cli/project',
  'cli/dev',
  'cli/commands',
  'cli',
  'fastify/api',
  'fastify',
  'nestjs',
  'demo',
]

/** Folders that no other folder may import, because an embedding service does not need them. */
const leaves = ['cli', 'fastify', 'nestjs', 'testing', 'demo']
const leafImports: Readonly<Record<string, readonly string[]>> = {
  // `bossbus dev` starts a server as tests do.
  cli: ['testing'],
  demo: ['fastify', 'testing'],
}

/** Packages that only some folders may import. */
const packages: Readonly<Record<string, readonly string[]>> = {
  'pg-boss': ['delivery'],
  fastify: ['fastify', 'demo'],
  '@modelcontextprotocol/server': ['cli'],
  '@nestjs/common': ['nestjs'],
  '@nestjs/core': ['nestjs'],
  '@platformatic/kafka': ['transports'],
  postgres: ['demo'],
  '@aws-sdk/client-eventbridge': ['transports'],
  '@aws-sdk/client-sns': ['transports'],
  '@aws-sdk/client-sqs': ['transports'],
  vitest: [],
}

interface Import {
  readonly from: string
  /** A file of the project, or a package. */
  readonly to: string
  readonly isFile: boolean
}

const project = fileURLToPath(new URL('..', import.meta.url))

function sourcesIn(root: string, folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.includes('node_modules'))
    .map((name) => join(folder, name))
    .toSorted()
}

function importsOf(root: string, file: string): Import[] {
  const text = readFileSync(join(root, file), 'utf8')
  const found = text.matchAll(/^(?:import|export)\b[^'"`;]*?from '([^']+)'|\bimport\('([^']+)'\)/gm)
  return [...found].map((match) => {
    const name = match[1] ?? match[2] ?? ''
    const isFile = name.startsWith('.')
    return { from: file, to: isFile ? normalize(join(dirname(file), name)) : packageOf(name), isFile }
  })
}

function packageOf(name: string): string {
  return name
    .split('/')
    .slice(0, name.startsWith('@') ? 2 : 1)
    .join('/')
}

/** The folder of a file, as listed in `layers`. */
function layerOf(file: string): string {
  return relative('src', dirname(file)) || '.'
}

function wrongDirection({ from, to, isFile }: Import): string | undefined {
  const [own, other] = [layerOf(from), layerOf(to)]
  const top = own.split('/')[0] ?? ''
  if (!isFile) {
    const allowed = packages[to]
    return allowed !== undefined && !allowed.includes(top) ? `${from} may not import ${to}` : undefined
  }
  for (const [file, layer] of [
    [from, own],
    [to, other],
  ] as const)
    if (!layers.includes(layer)) return `${file} is in a folder that scripts/structure.ts does not list`
  const otherTop = other.split('/')[0] ?? ''
  const isLeaf = leaves.includes(otherTop) && otherTop !== top && !leafImports[top]?.includes(otherTop)
  if (isLeaf || layers.indexOf(other) > layers.indexOf(own))
    return `${from} imports ${to}: src/${own} may only import itself and what scripts/structure.ts lists before it`
  return undefined
}

/** Circles of imports, including type imports: the strongly connected components of the graph with more than one file. */
function circlesOf(imports: readonly Import[]): string[][] {
  const next = Map.groupBy(imports, ({ from }) => from)
  const index = new Map<string, number>()
  const low = new Map<string, number>()
  const stack: string[] = []
  const circles: string[][] = []
  function visit(file: string): void {
    index.set(file, index.size)
    low.set(file, index.get(file) ?? 0)
    stack.push(file)
    for (const { to, isFile } of next.get(file) ?? []) {
      if (!isFile) continue
      if (!index.has(to)) visit(to)
      if (stack.includes(to)) low.set(file, Math.min(low.get(file) ?? 0, low.get(to) ?? 0))
    }
    if (low.get(file) !== index.get(file)) return
    const circle = stack.splice(stack.indexOf(file))
    if (circle.length > 1) circles.push(circle)
  }
  for (const file of next.keys()) if (!index.has(file)) visit(file)
  return circles
}

/** The functions with their number of positional parameters: declarations, methods, constructors and arrows. */
function parameterCounts(text: string): { readonly name: string; readonly count: number }[] {
  const heads =
    /(?:^|\s)(?:function\*?\s+(\w+)(?:<[^(]*>)?|(?:async\s+)?(#?\w+)(?:<[^(]*>)?|const (\w+)(?::[^=]*)? = (?:async )?(?:<[^(]*>)?)\(/g
  return [...text.matchAll(heads)].flatMap((match) => {
    const open = match.index + match[0].length
    const end = closing(text, open)
    const behind = text.slice(end + 1, end + 200)
    const name = match[1] ?? match[2] ?? match[3] ?? ''
    if (['if', 'for', 'while', 'switch', 'catch', 'return', 'await'].includes(name)) return []
    const isFunction = /^\s*(?::[^\n]*\{|\{|:[^=\n]*(?:\n[^=\n]*)*=>|\s*=>)/.test(behind)
    return isFunction ? [{ name, count: topLevelItems(text.slice(open, end)) }] : []
  })
}

function closing(text: string, open: number): number {
  let depth = 1
  for (let i = open; i < text.length; i += 1) {
    if ('([{'.includes(text[i] ?? '')) depth += 1
    else if (')]}'.includes(text[i] ?? '')) depth -= 1
    if (depth === 0) return i
  }
  return text.length
}

function topLevelItems(list: string): number {
  const bare = list.replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '').replaceAll('=>', '')
  let depth = 0
  let count = 0
  let hasText = false
  for (const character of bare) {
    if ('([{<'.includes(character)) depth += 1
    else if (')]}>'.includes(character)) depth -= 1
    if (character === ',' && depth === 0) {
      if (hasText) count += 1
      hasText = false
    } else if (character.trim() !== '') hasText = true
  }
  return count + (hasText ? 1 : 0)
}

/** Interfaces with functions that no function of their file returns: what one module hands down to another. */
function handedDown(text: string): { readonly name: string; readonly functionCount: number }[] {
  return [...text.matchAll(/^(?:export )?interface (\w+)(?:<[^{]*>)?[^{]*\{([\s\S]*?)^\}/gm)].flatMap(
    (match) => {
      const [, name = '', body = ''] = match
      const functionCount = [...body.matchAll(/^ {2}(?:readonly )?\w+\??: (?:\([^\n]*=>|\($)/gm)].length
      const isMade = new RegExp(`\\)(?:: |: Promise<)${name}\\b`).test(text)
      return functionCount > 0 && !isMade ? [{ name, functionCount }] : []
    },
  )
}

/** The migrations in `drizzle/` name tables of pg-boss as well: functions of the schema cannot be anywhere else. */
function misplacedSql(file: string): string[] {
  if (file.startsWith(bossTablesFolder)) return []
  const named = new Set(bossTablesIn(readFileSync(join(project, file), 'utf8')))
  return [...named].map(
    (name) => `${file} names ${name} of pg-boss: statements on its tables are in ${bossTablesFolder}`,
  )
}

function check(): number {
  const imports = ['src', 'scripts', 'test'].flatMap((folder) =>
    sourcesIn(project, folder).flatMap((file) => importsOf(project, file)),
  )
  const problems = [
    ...imports.filter(({ from }) => from.startsWith('src/')).map(wrongDirection),
    ...circlesOf(imports).map((files) => `a circle of imports: ${files.join(', ')}`),
    ...sourcesIn(project, 'src').flatMap(misplacedSql),
  ].filter((problem) => problem !== undefined)
  for (const problem of problems) console.error(problem)
  if (problems.length === 0) console.log(`${imports.length} imports go the right way, and none in a circle`)
  return problems.length === 0 ? 0 : 1
}

function count(root: string): void {
  const files = sourcesIn(root, 'src').map((file) => {
    const text = readFileSync(join(root, file), 'utf8')
    return { file, text, lineCount: text.split('\n').length - 1 }
  })
  const perFolder = Map.groupBy(files, ({ file }) => dirname(file))
  const folders = [...perFolder].map(([folder, inIt]) => ({ folder, fileCount: inIt.length }))
  const largest = files.toSorted((a, b) => b.lineCount - a.lineCount)
  const functions = files
    .flatMap(({ file, text }) => parameterCounts(text).map((each) => ({ file, ...each })))
    .toSorted((a, b) => b.count - a.count)
  const bags = files
    .flatMap(({ file, text }) => handedDown(text).map((each) => ({ file, ...each })))
    .toSorted((a, b) => b.functionCount - a.functionCount)
  const exportCount = files.reduce((sum, { text }) => sum + [...text.matchAll(/^export /gm)].length, 0)
  const readme = readFileSync(join(root, 'README.md'), 'utf8').split('\n').length - 1
  const imports = files.flatMap(({ file }) => importsOf(root, file))
  console.log(`files ${files.length}, lines ${files.reduce((sum, { lineCount }) => sum + lineCount, 0)}`)
  console.log(`folders ${folders.length}, most files in one: ${most(folders)}`)
  console.log(`files over 300 lines: ${largest.filter(({ lineCount }) => lineCount > 300).length}`)
  for (const { file, lineCount } of largest.slice(0, 3)) console.log(`  ${lineCount} ${file}`)
  console.log(`functions of more than 6 parameters: ${functions.filter((each) => each.count > 6).length}`)
  for (const each of functions.slice(0, 3)) console.log(`  ${each.count} ${each.file} ${each.name}`)
  console.log(
    `objects of more than 6 functions handed down: ${bags.filter((each) => each.functionCount > 6).length}`,
  )
  for (const each of bags.slice(0, 3)) console.log(`  ${each.functionCount} ${each.file} ${each.name}`)
  console.log(
    `exports ${exportCount}, circles of imports ${circlesOf(imports).length}, README lines ${readme}`,
  )
}

function most(folders: readonly { readonly folder: string; readonly fileCount: number }[]): string {
  return folders
    .toSorted((a, b) => b.fileCount - a.fileCount)
    .slice(0, 3)
    .map(({ folder, fileCount }) => `${folder} ${fileCount}`)
    .join(', ')
}

const { values, positionals } = parseArgs({
  options: { check: { type: 'boolean', default: false } },
  allowPositionals: true,
})
if (values.check) process.exitCode = check()
else count(positionals[0] ?? project)
