// @module-tag slow
import { expect, test } from 'vitest'
import { createBus } from '../../src/index.ts'
import { recordingLogger } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { shopEvents, type ShopVersion } from '../support/deployed-versions.ts'
import { isFullForm } from '../support/form.ts'
import { startProgram, type ProgramProcess } from '../support/processes.ts'

const eventCount = isFullForm ? 20_000 : 1500
const processCount = isFullForm ? 3 : 2
const types = ['order.placed', 'order.refunded', 'order.shipped'] as const

interface Deployed extends ProgramProcess {
  readonly version: ShopVersion
}

async function start({ url }: TestDatabase, version: ShopVersion): Promise<Deployed> {
  return { version, ...(await startProgram('deployed-process.ts', url, String(version))) }
}

/** Every second process is killed in the middle of its work, the others drain. */
async function end({ child, exited }: Deployed, kill: boolean): Promise<void> {
  child.kill(kill ? 'SIGKILL' : 'SIGTERM')
  await exited
}

test(
  `${processCount} processes are replaced, rolled back and replaced again while ${eventCount} events flow: none is lost, none goes to code that does not cover it`,
  { timeout: 300_000 },
  async () => {
    const database = await createTestDatabase({ max: 8 })
    await database.rows(
      'create table handled (subscription text, version int, event_id uuid, type text, at bigserial)',
    )
    const publisher = createBus({
      database: database.url,
      events: shopEvents,
      source: 'shop',
      logger: recordingLogger(),
    })
    const running = await Promise.all(Array.from({ length: processCount }, async () => start(database, 1)))
    let published = 0
    let deployed = false
    const publishing = (async () => {
      while (published < eventCount) {
        // Spread over the whole of the deployments: the rest once they are over.
        if (!deployed && published >= eventCount * 0.9)
          await new Promise((resolve) => setTimeout(resolve, 20))
        else {
          const size = published % 3 === 0 ? 1 : 20
          const events = Array.from({ length: Math.min(size, eventCount - published) }, (_, index) => ({
            type: types[(published + index) % 3] ?? 'order.placed',
            tenantId: 't',
            payload: { cents: ((published + index) * 37) % 200 },
            orderingKey: `key ${(published + index) % 20}`,
          }))
          await database.db.transaction(async (tx) => publisher.publishMany(tx, events))
          published += events.length
          await new Promise((resolve) => setTimeout(resolve, isFullForm ? 10 : 30))
        }
      }
    })()
    let replacements = 0
    let kills = 0
    let firstOfVersion2 = ''
    for (const version of [2, 1, 2] as const) {
      for (const index of running.keys()) {
        const before = running[index]
        const kill = (index + version) % 2 === 0
        if (kill) kills += 1
        // As deployments do: the new one first, here and there the old one first.
        if (index === 1 && before !== undefined) await end(before, kill)
        running[index] = await start(database, version)
        if (firstOfVersion2 === '') {
          const [row] = await database.rows('select bus.uuid_v7() as id')
          firstOfVersion2 = String(row?.['id'])
        }
        if (index !== 1 && before !== undefined) await end(before, kill)
        replacements += 1
        // A pod of the version that goes is restarted in the middle.
        if (index === 0 && running[1] !== undefined && (isFullForm || version === 1)) {
          replacements += 1
          const restarted = running[1]
          await end(restarted, false)
          running[1] = await start(database, restarted.version)
        }
      }
    }
    deployed = true
    await publishing
    // Jobs of dead workers are found by their heartbeats within 10 s.
    // What only version 2 covers is owed from its first start on.
    const owed = `
      bus.events e cross join bus.subscriptions s
      where case when e.id >= $1::uuid then s.name <> 'large' or (e.payload->>'cents')::int > 50
        else e.type <> 'order.refunded' and (s.name <> 'large' or (e.payload->>'cents')::int > 100) end`
    await until(
      'every receipt is there',
      async () =>
        (await database.count(
          `select count(*) from ${owed}
            and not exists (select from bus.deliveries d where d.event_id = e.id and d.subscription_id = s.id)`,
          [firstOfVersion2],
        )) === 0,
      120_000,
    )
    const lost = await database.count(
      `select count(*) from ${owed}
        and not exists (select from handled h where h.event_id = e.id and h.subscription = s.name)`,
      [firstOfVersion2],
    )
    const afterVersion2 = await database.count(
      `select count(*) from bus.events where id >= $1::uuid and type = 'order.refunded'`,
      [firstOfVersion2],
    )
    const uncovered = await database.rows(`
      select h.subscription, h.version, h.type, count(*)::int from handled h join bus.events e on e.id = h.event_id
      where (h.version = 1 and h.type = 'order.refunded')
        or (h.subscription = 'large' and (e.payload->>'cents')::int <= case h.version when 1 then 100 else 50 end)
      group by 1, 2, 3`)
    const doubled = await database.count(`
      select count(*) from (select event_id from handled where subscription = 'ledger' group by 1 having count(*) > 1) d`)
    const disordered = await database.count(`
      select count(*) from (
        select at, lag(at) over (partition by e.ordering_key order by o.first_id) as before
        from (select event_id, min(at) as at, event_id as first_id from handled where subscription = 'stock' group by 1) o
        join bus.events e on e.id = o.event_id) x
      where at < before`)
    const handled = await database.rows('select version, count(*)::int from handled group by 1 order by 1')
    console.log(
      `rolling deployment: ${eventCount} events, ${replacements} replacements, ${kills} of them kills: lost ${lost}, handed to code that does not cover them ${uncovered.length}, effects doubled ${doubled}, out of order ${disordered}; handled by version: ${JSON.stringify(handled)}`,
    )
    expect({ lost, uncovered, doubled, disordered }).toEqual({
      lost: 0,
      uncovered: [],
      doubled: 0,
      disordered: 0,
    })
    expect(await database.count(`select count(*) from pgboss.job where name like 'bus.%.dead'`)).toBe(0)
    expect(afterVersion2).toBeGreaterThan(0)
    // Both versions took part.
    expect(handled.map(({ version }) => version)).toEqual([1, 2])
    expect(await database.count('select count(*) from bus.outbox')).toBe(0)
    for (const each of running) await end(each, false)
    await publisher.stop()
  },
)
