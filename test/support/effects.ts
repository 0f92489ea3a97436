import { sql } from 'drizzle-orm'
import type { HandlerTransaction } from '../../src/index.ts'
import type { TestDatabase } from './database.ts'

/** Makes a table for what handlers do. Nothing in it keeps an effect from being there twice. */
export async function createEffects({ rows }: TestDatabase): Promise<void> {
  await rows('create table effects (event_id uuid not null, what text not null)')
}

export async function writeEffect(
  tx: HandlerTransaction,
  { id, payload }: { id: string; payload: unknown },
): Promise<void> {
  await tx.execute(sql`insert into effects values (${id}, ${String(payload)})`)
}

/** Receipts and effects as one snapshot shows them. */
export async function countEffects({ rows }: TestDatabase): Promise<{
  receipts: number
  effects: number
  distinct: number
}> {
  const [counts] = await rows(`select (select count(*)::int from bus.deliveries) as receipts,
    (select count(*)::int from effects) as effects, (select count(distinct event_id)::int from effects) as distinct`)
  return counts as { receipts: number; effects: number; distinct: number }
}
