import { readFileSync } from 'node:fs'

const journal = JSON.parse(
  readFileSync(new URL('../../drizzle/meta/_journal.json', import.meta.url), 'utf8'),
) as { readonly entries: readonly unknown[] }

/** How many migrations there are. */
export const migrationCount = journal.entries.length
