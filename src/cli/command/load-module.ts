import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, extname } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { createJiti } from 'jiti'
import { BusError } from '../../foundation/errors.ts'
import { UsageError } from './usage-error.ts'

type Exports = Readonly<Record<string, unknown>>

/** https://github.com/unjs/jiti */
interface Jiti {
  readonly createJiti: typeof createJiti
}

/** Codes of Node for modules that are written for a compiler: unknown syntax, paths without extensions, aliases of tsconfig.json. */
const forCompilers = new Set([
  'ERR_UNKNOWN_FILE_EXTENSION',
  'ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX',
  'ERR_UNSUPPORTED_NODE_MODULES_TYPE_STRIPPING',
  'ERR_UNSUPPORTED_DIR_IMPORT',
  'ERR_MODULE_NOT_FOUND',
  'ERR_IMPORT_ATTRIBUTE_MISSING',
])

/**
 * Imports a module of the service: with Node itself, which leaves out the types, and where that is not enough with `jiti`, which knows enums,
 * decorators and the path aliases of tsconfig.json.
 *
 * @throws a {@link UsageError} if it cannot be loaded; what the module throws that is a BusError
 */
export async function loadModule(file: string): Promise<Exports> {
  try {
    return (await import(pathToFileURL(file).href)) as Exports
  } catch (error) {
    if (error instanceof BusError) throw error
    const { code = '' } = (error ?? {}) as { readonly code?: string }
    const isForCompiler =
      extname(file).endsWith('ts') && (forCompilers.has(code) || error instanceof SyntaxError)
    const jiti = isForCompiler ? await findJiti(file) : undefined
    if (jiti !== undefined) return loadWith(jiti, file)
    throw new UsageError(`${file} could not be loaded: ${explain(error, file)}`, { cause: error })
  }
}

async function loadWith({ createJiti }: Jiti, file: string): Promise<Exports> {
  try {
    const jiti = createJiti(file, { tsconfigPaths: true, interopDefault: false })
    return await jiti.import<Exports>(file)
  } catch (error) {
    if (error instanceof BusError) throw error
    throw new UsageError(`${file} could not be loaded: ${messageOf(error)}`, { cause: error })
  }
}

/** The service's own one, else the one beside this package. */
async function findJiti(file: string): Promise<Jiti | undefined> {
  for (const from of [file, import.meta.url]) {
    try {
      const path = createRequire(from).resolve('jiti')
      return (await import(pathToFileURL(path).href)) as Jiti
    } catch {
      // Not installed there.
    }
  }
  return undefined
}

function explain(error: unknown, file: string): string {
  const { code } = (error ?? {}) as { readonly code?: string }
  const message = `${messageOf(error)}${placeOf(error, file)}`
  if (!extname(file).endsWith('ts')) return message
  const remedy = `Install jiti, which can load it: npm install --save-dev jiti (in ${dirname(file)})`
  if (code === 'ERR_UNKNOWN_FILE_EXTENSION')
    return `this Node (${process.version}) does not run TypeScript. Use Node 22.18 or newer, or write the configuration in JavaScript. ${remedy}`
  if (code === 'ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX')
    return `Node runs TypeScript by leaving out the types, and this needs more (an enum, a namespace, a decorator): ${message}. ${remedy}`
  if (code === 'ERR_MODULE_NOT_FOUND')
    return `${message}. If it imports by path aliases or without extensions: ${remedy.charAt(0).toLowerCase()}${remedy.slice(1)}`
  return message
}

function messageOf(error: unknown): string {
  return (error as { readonly message?: string } | null)?.message ?? String(error)
}

/** ` (/work/shop/bossbus.config.mjs:3)` of a syntax error in a file, which Node tells only when it prints one. */
function placeOf(error: unknown, file: string): string {
  if (!(error instanceof SyntaxError)) return ''
  const place = /^(?:file:\/\/)?(\/[^\n]*:\d+)$/m
  const found = place.exec(error.stack ?? '') ?? place.exec(check(file))
  return found === null ? '' : ` (${found[1]})`
}

function check(file: string): string {
  return spawnSync(process.execPath, ['--check', file], { encoding: 'utf8', timeout: 10_000 }).stderr
}
