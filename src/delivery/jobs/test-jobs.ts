/**
 * SQL on the jobs of all subscriptions, for `bossbus/testing`: whole statements, and tables to select from. Each statement over all
 * queues locks every one of them, which a database for tests can bear.
 */

/** The jobs that have not ended, with their subscription, as a table. */
export function unfinishedJobsSql(bossSchema: string): string {
  return `(
    select s.id as subscription_id, s.name as subscription, j.data, j.state, j.output, j.retry_count, j.start_after
    from bus.subscriptions s join ${bossSchema}.job j on j.name = 'bus.' || s.name and j.state < 'completed')`
}

/** The dead letters that nobody has redriven, with their subscription, as a table. */
export function deadJobsSql(bossSchema: string): string {
  return `(
    select s.name as subscription, j.data, j.source_output
    from bus.subscriptions s join ${bossSchema}.job j on j.name = 'bus.' || s.name || '.dead' and j.state < 'active')`
}

/** Deletes the jobs that no worker has. */
export function deleteWaitingJobsSql(bossSchema: string): string {
  return `delete from ${bossSchema}.job where name like 'bus.%' and state < 'active'`
}

export function deleteAllJobsSql(bossSchema: string): string {
  return `delete from ${bossSchema}.job where name like 'bus.%'`
}

/** How many jobs workers have: one row with `running`. */
export function countRunningJobsSql(bossSchema: string): string {
  return `select count(*)::int as running from ${bossSchema}.job where name like 'bus.%' and state = 'active'`
}

/** Makes every job that waits for its time due now: a row with the `id` of the subscription for each. */
export function makeJobsDueSql(bossSchema: string): string {
  return `
    update ${bossSchema}.job j set start_after = clock_timestamp() from bus.subscriptions s
    where j.name = 'bus.' || s.name and j.state < 'active' and j.start_after > clock_timestamp()
    returning s.id`
}

/** Lets the heartbeats of all workers lapse. */
export function lapseHeartbeatsSql(bossSchema: string): string {
  return `
    update ${bossSchema}.job j set heartbeat_on = clock_timestamp() - interval '1 day' from bus.subscriptions s
    where j.name = 'bus.' || s.name and j.state = 'active'`
}

/** Makes every queue due for the look at its lost jobs. */
export function makeQueuesDueSql(bossSchema: string): string {
  return `update ${bossSchema}.queue set monitor_on = null, monitor_claim_on = null`
}
