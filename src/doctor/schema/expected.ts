import { readFile } from 'node:fs/promises'
import type { SchemaObjects } from './catalog.ts'

/** What the migrations of this version make of an empty database: drizzle/objects.json, which test/doctor/objects.test.ts renews. */
export async function loadExpectedObjects(): Promise<SchemaObjects> {
  // The same way from `src` and from `dist`.
  const file = new URL('../../../drizzle/objects.json', import.meta.url)
  return JSON.parse(await readFile(file, 'utf8')) as SchemaObjects
}
