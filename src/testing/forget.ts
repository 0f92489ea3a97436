import { defaultBossSchema } from '../database/boss-schema.ts'
import { countRunningJobsSql, deleteAllJobsSql, deleteWaitingJobsSql } from '../delivery/jobs/test-jobs.ts'
import type { TestDatabase } from './test-database.ts'

/** Deletes everything that waits, so that no more handlers start. Resolves to the number of running jobs. */
export async function deleteWaiting({ query }: Pick<TestDatabase, 'query'>): Promise<number> {
  const [row] = await query(`
    with waiting as (delete from bus.outbox),
    lines as (delete from bus.ordered_events),
    keys as (delete from bus.ordered_keys),
    failing as (delete from bus.failing),
    jobs as (${deleteWaitingJobsSql(defaultBossSchema)})
    ${countRunningJobsSql(defaultBossSchema)}`)
  return Number(row?.['running'] ?? 0)
}

/** Deletes all data about events; subscriptions and instances remain. */
export async function deleteAll({ query }: Pick<TestDatabase, 'query'>): Promise<void> {
  await query(`
    do $$ begin
      ${deleteAllJobsSql(defaultBossSchema)};
      delete from bus.outbox;
      delete from bus.ordered_events;
      delete from bus.ordered_keys;
      delete from bus.receipts;
      delete from bus.receipt_batches;
      delete from bus.attempts;
      delete from bus.failing;
      delete from bus.rollups;
      delete from bus.hourly_rollups;
      delete from bus.tenant_rollups;
      delete from bus.canaries;
      delete from bus.cancellations;
      delete from bus.erasures;
      delete from bus.event_keys;
      delete from bus.events;
    end $$`)
}
