import { setTimeout as pause } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { until } from '../support/database.ts'
import { createEffects } from '../support/effects.ts'
import { recordFigure } from '../support/figures.ts'
import { isFullForm } from '../support/form.ts'
import { startOwnServer, type OwnServer } from '../support/own-server.ts'
import { loadProgram, type LoadedProgram } from '../support/processes.ts'
import { randomOfTest } from '../support/random.ts'
import { inOrder, readTurns, turnsTable } from '../support/turns.ts'

const random = randomOfTest()

/** Dead letters of each subscription: each blocked key has one, and events behind it. */
const form = isFullForm
  ? {
      plainCount: 45_000,
      onceCount: 45_000,
      keyCount: 10_000,
      serverKills: 3,
      maxKills: 40,
      drainMs: 600_000,
    }
  : { plainCount: 1500, onceCount: 1000, keyCount: 150, serverKills: 1, maxKills: 3, drainMs: 60_000 }
const eventsPerKey = 3
const letterCount = form.plainCount + form.onceCount + form.keyCount

/** As they are when each event has failed its last attempt: by hand, because failing takes longer than all the rest. */
async function makeDeadLetters({ rows }: OwnServer): Promise<void> {
  const letters = (subscription: string, from: string, keyed: boolean): string => `
    insert into bus.failing (subscription_id, event_id, state, attempts, tenant_id, fingerprint, error_name, job_id, key_id, failed_at)
    select s.id, d.event_id, '${keyed ? 'blocked' : 'dead'}', 50, 'acme', 'f', 'Error', d.job_id, ${keyed ? 'd.key_id' : 'null'}, now() - interval '1 hour' + d.n * interval '10 microseconds'
    from ${from} d join bus.subscriptions s on s.name = '${subscription}';
    insert into pgboss.job (name, data, policy, source_name, source_id, source_root_id, source_retry_count)
    select 'bus.${subscription}.dead', jsonb_build_object('eventIds', jsonb_build_array(d.event_id), 'attempts', 50, 'failures', '[]'::jsonb),
      'standard', 'bus.${subscription}', d.job_id, d.job_id, 0 from ${from} d;`
  await rows(`
    set session_replication_role = replica;
    create table plain_letters as select n, bus.uuid_v7() as event_id, gen_random_uuid() as job_id from generate_series(1, ${form.plainCount}) n;
    create table once_letters as select n, bus.uuid_v7() as event_id, gen_random_uuid() as job_id from generate_series(1, ${form.onceCount}) n;
    create table keyed_events as select n, place, bus.uuid_v7() as event_id from generate_series(1, ${form.keyCount}) n, generate_series(0, ${eventsPerKey - 1}) place;
    insert into bus.events (id, tenant_id, type, source, payload)
    select event_id, 'acme', 'note', 'payment-service', to_jsonb(n) from (table plain_letters union all table once_letters) e;
    insert into bus.events (id, tenant_id, type, source, payload, ordering_key)
    select event_id, 'acme', 'payment.paid', 'payment-service', jsonb_build_object('paymentId', 'p', 'amountCents', place), 'k' || n from keyed_events;
    insert into bus.ordered_keys (id, subscription_id, key_hash, tenant_id, ordering_key, state, failed_event_id, attempts, failures, failed_at)
    select e.n, s.id, bus.ordering_key_hash('acme', 'k' || e.n), 'acme', 'k' || e.n, 'blocked', e.event_id, 50, '[]', now()
    from keyed_events e join bus.subscriptions s on s.name = 'in-order' where e.place = 0;
    insert into bus.ordered_events (key_id, event_id, payload_bytes) select n, event_id, 50 from keyed_events order by n, place;
    create table key_letters as select n, event_id, gen_random_uuid() as job_id, n as key_id from keyed_events where place = 0;
    ${letters('plain', 'plain_letters', false)}
    ${letters('once', 'once_letters', false)}
    ${letters('in-order', 'key_letters', true)}
    reset session_replication_role;
    analyze`)
}

test(
  'processes and the server are killed while dead letters are redriven: none is lost or doubled, and each key keeps its order',
  { timeout: 1_800_000 },
  async () => {
    const server = await startOwnServer()
    await createEffects(server as never)
    await server.rows(turnsTable)
    const load = async (): Promise<LoadedProgram> => loadProgram('redriving-process.ts', server.url)
    const registering = await load()
    registering.begin()
    await registering.says('started')
    registering.child.kill('SIGTERM')
    await registering.exited
    await makeDeadLetters(server)

    const operator = testBus(server.url)
    const selection = { from: new Date(0) }
    const preview = await operator.deadLetters.redrive(selection, { by: 'ana', dryRun: true })
    expect(preview).toMatchObject({ count: letterCount, isCountPartial: false })
    const { id } = await operator.deadLetters.redrive(selection, { by: 'ana' })
    const isDone = async (): Promise<boolean> =>
      (await server.count(`select count(*) from bus.operations where state = 'done'`)) === 1

    const startedAt = performance.now()
    const running = [await load(), await load()]
    for (const { begin } of running) begin()
    let spare = load()
    let kills = 0
    let serverKills = 0
    while (kills < form.maxKills && !(await isDone())) {
      await pause(200 + random() * 800)
      const heir = await spare
      spare = load()
      heir.begin()
      const [victim] = running.splice(Math.floor(random() * running.length), 1, heir)
      victim?.child.kill('SIGKILL')
      kills += 1
      if (kills % 2 === 0 && serverKills < form.serverKills) {
        await server.kill()
        await server.restart()
        serverKills += 1
      }
    }
    await until('the redrive is done', isDone, form.drainMs)
    const redrivenMs = performance.now() - startedAt
    let last = -1
    await until(
      'all are delivered',
      async () => {
        const left = await server.count(
          `select (select count(*) from bus.failing) + (select count(*) from bus.ordered_keys)`,
        )
        // What is still in hand belongs to the dead.
        if (left === last)
          await server.rows(
            `update pgboss.job set heartbeat_on = now() - interval '1 hour' where state = 'active'`,
          )
        last = left
        await pause(isFullForm ? 2000 : 1000)
        return left === 0
      },
      form.drainMs,
    )
    const deliveredMs = performance.now() - startedAt
    ;(await spare).child.kill('SIGKILL')
    for (const { child } of running) child.kill('SIGTERM')
    await Promise.all(running.map(async ({ exited }) => exited))

    const [found] = await server.rows(
      `select (select count(*)::int from effects) as effects, (select count(distinct event_id)::int from effects) as distinct_effects,
         (select count(*)::int from bus.deliveries d join bus.subscriptions s on s.id = d.subscription_id where s.name = 'plain' and not d.expired) as plain,
         (select count(distinct event_id)::int from bus.deliveries) as delivered,
         (select count(*)::int from bus.deliveries) as receipts,
         (select count(*)::int from pgboss.job where name like 'bus.%.dead') as dead_jobs`,
    )
    const wrongKeys = Object.values(await readTurns(server as never)).filter(
      (turns) => turns !== inOrder(eventsPerKey),
    )
    const operation = await operator.operations.get(id)
    expect({
      ...found,
      wrongKeys,
      counts: operation.counts,
      keys: Object.keys(await readTurns(server as never)).length,
    }).toEqual({
      ...{ effects: form.onceCount, distinct_effects: form.onceCount, plain: form.plainCount, dead_jobs: 0 },
      delivered: form.plainCount + form.onceCount + form.keyCount * eventsPerKey,
      receipts: form.plainCount + form.onceCount + form.keyCount * eventsPerKey,
      wrongKeys: [],
      keys: form.keyCount,
      counts: { redriven: letterCount },
    })
    expect(kills).toBeGreaterThan(0)
    const figure =
      `${letterCount} dead letters of three subscriptions redriven in ${(redrivenMs / 1000).toFixed(1)} s, all delivered after ${(deliveredMs / 1000).toFixed(1)} s; ` +
      `${kills} kills of a process, ${serverKills} of PostgreSQL; lost 0, doubled 0, keys out of order ${wrongKeys.length}`
    recordFigure('2 processes and PostgreSQL killed while dead letters are redriven', figure)
    console.log(figure)
  },
)
