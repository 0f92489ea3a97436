// @module-tag slow
import { setTimeout as pause } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { createTestDatabase } from '../support/database.ts'
import { recordFigure } from '../support/figures.ts'
import { isFullForm } from '../support/form.ts'
import { startProgram, type ProgramProcess } from '../support/processes.ts'
import { roomFor } from '../support/slowness.ts'
import { randomOfTest } from '../support/random.ts'

const random = randomOfTest()

const durationMs = isFullForm ? 20_000 : 4000

/**
 * Ends backends of the service at random while it publishes. The service may die of it, as one on postgres.js does: then
 * it is started again, as whatever runs services would.
 */
test.each(['postgres.js', 'node-postgres', 'node-postgres-listening'])(
  'a service on %s whose backends are terminated has no event without its business state, and the other way round',
  async (driver) => {
    const database = await createTestDatabase()
    await database.rows('create table orders (name text)')
    await database.rows('create table lines (name text)')
    const processes: ProgramProcess[] = []
    let current: ProgramProcess | undefined
    let isUp = false
    const start = async (): Promise<void> => {
      current = await startProgram('driver-process.ts', database.url, driver)
      processes.push(current)
      isUp = true
      current.child.once('exit', () => (isUp = false))
    }
    await start()
    const startedAt = performance.now()
    let terminated = 0
    const orderCount = async (): Promise<number> => database.count('select count(*) from orders')
    // Long enough for some transactions to end, also on a slow machine.
    while (performance.now() - startedAt < durationMs || (await orderCount()) === 0) {
      await pause(roomFor(20 + random() * 80))
      if (!isUp) await start()
      terminated += await database.count(`select count(pg_terminate_backend(pid)) from (
        select pid from pg_stat_activity where datname = current_database() and application_name = 'victim'
        order by random() limit 1) victims`)
    }
    current?.child.kill('SIGTERM')
    await Promise.all(processes.map(async ({ exited }) => exited))
    const [row] = await database.rows(`
      select (select count(*)::int from orders) as orders,
        (select count(*)::int from orders o where not exists (select from bus.events e where e.payload #>> '{}' = o.name)) as without_event,
        (select count(*)::int from bus.events e where not exists (select from orders o where e.payload #>> '{}' = o.name)) as without_order,
        (select count(*)::int from orders o where not exists (select from lines l where l.name = o.name)) as without_line,
        (select count(*)::int from lines l where not exists (select from orders o where l.name = o.name)) as line_without_order,
        (select count(*)::int from bus.events e where not exists (select from bus.outbox b where b.event_id = e.id)) as without_outbox`)
    const ends: Record<string, number> = {}
    for (const { output } of processes) {
      const line = output.findLast((text) => text.startsWith('{'))
      for (const [end, count] of Object.entries(JSON.parse(line ?? '{}') as Record<string, number>))
        ends[end] = (ends[end] ?? 0) + count
    }
    const reasons = new Set(
      processes.flatMap(({ output }) => output.filter((line) => line.startsWith('uncaught'))),
    )
    console.log(
      `${driver}: ${terminated} backends terminated, the process died ${processes.length - 1} times (${[...reasons].join('; ')}), ${JSON.stringify(ends)}, ${JSON.stringify(row)}`,
    )
    recordFigure(
      `a service on ${driver} whose backends are terminated (${terminated} times in ${durationMs / 1000} s)`,
      `${String(row?.['orders'])} transactions; events without state ${String(row?.['without_order'])}, state without event ${String(row?.['without_event'])}`,
    )
    expect(terminated).toBeGreaterThan(0)
    expect(Number(row?.['orders'])).toBeGreaterThan(0)
    // What the bus promises, whatever the driver does.
    expect(row).toMatchObject({ without_event: 0, without_order: 0, without_outbox: 0 })
    // What only a driver can promise, for statements of the service's own.
    expect(driver === 'postgres.js' || (row?.['without_line'] === 0 && row['line_without_order'] === 0)).toBe(
      true,
    )
  },
)
