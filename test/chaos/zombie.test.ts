import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { expect, onTestFinished, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { createEffects } from '../support/effects.ts'
import { recordFigure } from '../support/figures.ts'
import { isFullForm } from '../support/form.ts'
import { checkHistory } from '../support/history.ts'
import { loadProgram } from '../support/processes.ts'

/** Longer than the heartbeat of 30 s, and than the server bears a transaction that says nothing. The short form sets heartbeats back. */
const stoppedMs = isFullForm ? 90_000 : 1500

test('a process that is stopped under load and goes on after others took its work over makes no effect twice', async () => {
  const database = await createTestDatabase({ max: 8 })
  await createEffects(database)
  await database.rows('create table commits (name text)')
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-zombie-'))
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  const processes = await Promise.all(
    [1, 2].map(async () => loadProgram('killed-process.ts', database.url, folder)),
  )
  for (const { begin } of processes) begin()
  await Promise.all(processes.map(async ({ says }) => says('started')))
  const publisher = testBus(database.url)
  const delivered = async (): Promise<number> => database.count('select count(*) from bus.deliveries')
  let publishing = true
  const writing = (async () => {
    for (let n = 0; publishing; n += 1) {
      const names = Array.from({ length: 40 }, (_, i) => `${n}.${i}`)
      await database.db.transaction(async (tx) => {
        await tx.execute(sql`insert into commits select unnest(${sql.param(names)}::text[])`)
        await publisher.publishMany(
          tx,
          names.map((payload) => ({ type: 'note', tenantId: 'a', payload }) as const),
        )
      })
      await pause(isFullForm ? 200 : 30)
    }
  })()

  await until('they are at work', async () => (await delivered()) > 1000)
  // The one that does most of it: beside the relay that leads.
  const sizes = await Promise.all(
    processes.map(async ({ child }) => (await stat(join(folder, `${String(child.pid)}.runs`))).size),
  )
  const zombie = processes[(sizes[0] ?? 0) >= (sizes[1] ?? 0) ? 0 : 1]
  // In the middle of something: its transactions are open, or its jobs in hand.
  await until('it has something in hand', async () => {
    zombie?.child.kill('SIGSTOP')
    const inHand = await database.count(
      `select count(*) from pgboss.job where name like 'bus.%' and state = 'active'`,
    )
    if (inHand > 0) return true
    zombie?.child.kill('SIGCONT')
    return false
  })
  const stoppedAt = performance.now()
  await pause(stoppedMs)
  if (!isFullForm) {
    await database.rows(
      `update pgboss.job set heartbeat_on = now() - interval '1 hour' where state = 'active'`,
    )
    await pause(1500)
  }
  const meanwhile = await delivered()
  zombie?.child.kill('SIGCONT')
  const tookMs = performance.now() - stoppedAt
  await until('it goes on', async () => (await delivered()) > meanwhile + 1000)
  publishing = false
  await writing
  const committed = (await database.rows('select name from commits')).map(({ name }) => String(name))
  await until('everything is delivered', async () => (await delivered()) === committed.length * 2)
  for (const { child } of processes) child.kill('SIGTERM')
  expect(await Promise.all(processes.map(async ({ exited }) => exited))).toEqual([0, 0])
  const runs = await Promise.all(
    (await readdir(folder))
      .filter((file) => file.endsWith('.runs'))
      .map(async (file) => readFile(join(folder, file), 'utf8')),
  )
  const findings = checkHistory({
    committed,
    ran: runs.flatMap((text) => text.split('\n').filter((line) => line !== '')),
    effects: (await database.rows('select what from effects')).map(({ what }) => String(what)),
  })
  recordFigure(
    `zombie worker (SIGSTOP ${Math.round(tookMs / 1000)} s, then SIGCONT) under load`,
    `${findings.committedCount} events; effect duplicates ${findings.doubledEffects.length}, effects missing ${findings.withoutEffect.length}, lost ${findings.lost.length}; the at-least-once handler repeated ${findings.repeatedRunCount}`,
  )
  expect(findings).toMatchObject({ lost: [], withoutEffect: [], doubledEffects: [], invented: [] })
  // It was not alone.
  expect(runs.filter((text) => text !== '')).toHaveLength(2)
})
