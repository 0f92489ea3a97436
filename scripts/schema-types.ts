/**
 * A step of the build: provides `bossbus/schema` with the types of the installed Drizzle. The types of 0.44 and 0.45
 * differ from those of 1.x in every column, so both are emitted, and the entry point chooses.
 */
import { rename, writeFile } from 'node:fs/promises'
import * as schema from '../src/schema.ts'

const dist = new URL('../dist/', import.meta.url)
await rename(new URL('schema.d.ts', dist), new URL('schema-0.d.ts', dist))
const declarations = Object.keys(schema).map(
  (name) => `export declare const ${name}: Chosen<typeof of0.${name}, typeof of1.${name}>;`,
)
await writeFile(
  new URL('schema.d.ts', dist),
  `/**
 * The Drizzle tables of the bus, for reads and joins, in the types of the drizzle-orm that is installed. Import them; do not export
 * them from a file that drizzle-kit reads: it would plan to make, change or drop what bus.migrate() has made. See docs/drizzle.md.
 *
 * @module
 */
import type { DrizzleConfig } from 'drizzle-orm';
import type * as of0 from './schema-0.js';
import type * as of1 from './drizzle-1/schema.js';
type Chosen<Of0, Of1> = 'relations' extends keyof DrizzleConfig ? Of1 : Of0;
${declarations.join('\n')}
`,
)
