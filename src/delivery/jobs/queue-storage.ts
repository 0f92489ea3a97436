import type { PgBoss } from 'pg-boss'
import { isLockTimeout } from '../../database/database-errors.ts'

/**
 * Storage settings of the table of a queue. Each job leaves two dead entries within milliseconds in the index that
 * pg-boss fetches through, while the table keeps the settled jobs of the last hour: with the server's defaults, a fifth
 * of the table would have to be dead before a vacuum. The statistics follow a backlog within a minute.
 */
const storage = [
  'autovacuum_vacuum_scale_factor=0.02',
  'autovacuum_vacuum_threshold=1000',
  'autovacuum_vacuum_insert_scale_factor=0.1',
  'autovacuum_analyze_scale_factor=0.02',
  'autovacuum_analyze_threshold=500',
  'autovacuum_vacuum_cost_delay=0',
] as const

/**
 * Applies these settings to the tables of the bus's queues: to all, or to that of one queue. Takes SHARE UPDATE
 * EXCLUSIVE on each, so jobs can be inserted and settled meanwhile. A role that does not own them leaves them
 * unchanged; a start or a migration by the owner applies them.
 */
export async function applyQueueStorage(boss: PgBoss, queue?: string): Promise<void> {
  const db = boss.getDb()
  const queues = await boss.getQueues(queue === undefined ? undefined : [queue])
  const tables = queues.filter(({ name, partition }) => partition === true && name.startsWith('bus.'))
  const { rows } = await db.executeSql(
    `select c.oid::regclass::text as table_name from pg_class c
     where c.relname = any($1::text[]) and c.relnamespace = quote_ident(bus.boss_schema())::regnamespace
       and not coalesce(c.reloptions, '{}') @> $2::text[] and pg_has_role(c.relowner, 'usage')
     order by c.relname`,
    [tables.map(({ table }) => table), storage],
  )
  for (const { table_name } of rows as { readonly table_name: string }[]) {
    // A locked table is left to the next start.
    await db
      .executeSql(`set local lock_timeout = '1s'; alter table ${table_name} set (${storage.join(', ')})`)
      .catch((error: unknown) => {
        if (!isLockTimeout(error)) throw error
      })
  }
}
