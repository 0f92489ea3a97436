// @module-tag slow
import { expect, test } from 'vitest'
import { recordingLogger, testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { createLogin } from '../support/roles.ts'

test.each(['the owner', 'bus_worker'])(
  'what the dashboard of pg-boss reads is counted within seconds of the start, by %s',
  async (who) => {
    const database = await createTestDatabase()
    const open = (url: string) => {
      const logger = recordingLogger()
      const bus = testBus(url, { logger })
      bus.subscribe({ name: 'seen', events: ['note'], handler: () => {} })
      return { bus, logger }
    }
    const owner = open(database.url)
    await owner.bus.start()
    await owner.bus.subscriptions.pause('seen')
    for (const payload of [1, 2, 3]) await owner.bus.tryPublish({ type: 'note', tenantId: 'acme', payload })
    await until('they wait', async () => (await database.count('select count(*) from bus.outbox')) === 0)
    if (who === 'bus_worker') {
      await owner.bus.stop()
      // Some days later there are none for the day, and it may not make any.
      await database.rows(`do $$ declare t text; begin
        for t in select inhrelid::regclass::text from pg_inherits where inhparent = 'pgboss.queue_stats'::regclass loop
          execute 'drop table ' || t;
        end loop; end $$`)
      await database.rows(`update pgboss.queue set queued_count = 0`)
    }
    const { bus, logger } =
      who === 'bus_worker' ? open((await createLogin(database, ['bus_worker'])).url) : owner
    await bus.start()
    const waiting = await database.count(`select count(*) from pgboss.job where name = 'bus.seen'`)
    expect(waiting).toBeGreaterThan(0)
    await until(
      'they are counted',
      async () =>
        (await database.count(`select queued_count from pgboss.queue where name = 'bus.seen'`)) === waiting,
    )
    await until(
      'pg-boss was done with it',
      async () =>
        (await database.count(`select count(*) from pgboss.queue where maintain_on is not null`)) > 0,
    )
    const trend = await database.rows(
      `select distinct queued_count, active_count from pgboss.queue_stats where name = 'bus.seen'`,
    )
    // Only the owner can make the partitions that the trend is kept in.
    expect(trend).toEqual(who === 'bus_worker' ? [] : [{ queued_count: waiting, active_count: 0 }])
    expect(logger.lines.filter(({ level }) => level === 'warn' || level === 'error')).toEqual([])
  },
)
