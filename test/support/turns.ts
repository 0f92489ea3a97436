import { sql } from 'drizzle-orm'
import type { HandlerTransaction } from '../../src/index.ts'
import type { TestDatabase } from './database.ts'

/** A table for what handlers do with the events of keys. Nothing in it keeps an effect from being there twice, or out of order. */
export const turnsTable =
  'create table turns (position bigint generated always as identity, key text not null, what text not null)'

/** Notes, in the handler's transaction, that an event of a key had its turn. */
export async function takeTurn(tx: HandlerTransaction, key: string, what: unknown): Promise<void> {
  await tx.execute(sql`insert into turns (key, what) values (${key}, ${String(what)})`)
}

/** What handlers have done, key by key, in the order in which they did it. */
export async function readTurns({ rows }: TestDatabase): Promise<Record<string, string>> {
  const found = await rows(
    `select key, string_agg(what, ' ' order by position) as whats from turns group by key order by key`,
  )
  return Object.fromEntries(found.map(({ key, whats }) => [String(key), String(whats)]))
}

/** `0 1 2…`: so many events of a key, each once and in order. */
export function inOrder(count: number): string {
  return Array.from({ length: count }, (_, n) => n).join(' ')
}
