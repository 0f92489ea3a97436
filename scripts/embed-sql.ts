/**
 * The last step of the build: puts the SQL of `drizzle/` into the built package as a module, in place of the one that
 * reads the folder, so that a bundler includes it.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { loadShippedSql } from '../src/migrations/shipped-sql.ts'

const module = new URL('../dist/migrations/shipped-sql.js', import.meta.url)
const built = await readFile(module, 'utf8')
const reader = /^export async function loadShippedSql\(\) \{\n.*?\n\}\n/ms
if (!reader.test(built)) throw new Error('dist/migrations/shipped-sql.js has no loadShippedSql')
const sql = JSON.stringify(await loadShippedSql())
await writeFile(
  module,
  built
    .replace(reader, () => `export async function loadShippedSql() {\n    return ${sql};\n}\n`)
    .replace(/^import \{ readFile \} .*\n/m, ''),
)
