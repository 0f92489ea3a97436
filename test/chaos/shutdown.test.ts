// @module-tag slow
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { isFullForm } from '../support/form.ts'
import { startProgram } from '../support/processes.ts'
import { roomFor } from '../support/slowness.ts'

test.each(isFullForm ? ['plain', 'fastify', 'signals'] : ['plain', 'signals'])(
  'a process (%s) that gets SIGTERM, and again, finishes what runs and leaves the rest to the next, no attempt burnt',
  async (how) => {
    const database = await createTestDatabase()
    const folder = await mkdtemp(join(tmpdir(), 'bossbus-stop-'))
    onTestFinished(async () => rm(folder, { recursive: true, force: true }))
    const start = async () => startProgram('stopping-process.ts', database.url, folder, how)
    const delivered = async (): Promise<number> => database.count('select count(*) from bus.deliveries')
    const first = await start()
    const publisher = testBus(database.url)
    const notes = Array.from(
      { length: 200 },
      (_, payload) => ({ type: 'note', tenantId: 'a', payload }) as const,
    )
    await database.db.transaction(async (tx) => publisher.publishMany(tx, notes))
    await until('it is at work', async () => (await delivered()) > 0)
    const stoppedAt = performance.now()
    first.child.kill('SIGTERM')
    first.child.kill('SIGTERM')
    expect(await first.exited).toBe(0)
    expect(performance.now() - stoppedAt).toBeLessThan(roomFor(5000))
    const byFirst = await delivered()
    expect(byFirst).toBeLessThan(200)
    // Nothing is left in the hands of the dead.
    expect(
      await database.count(`select count(*) from pgboss.job where name = 'bus.slow' and state = 'active'`),
    ).toBe(0)
    const second = await start()
    await until('the rest is delivered', async () => (await delivered()) === 200)
    second.child.kill('SIGTERM')
    expect(await second.exited).toBe(0)
    const texts = await Promise.all(
      (await readdir(folder)).map(async (file) => readFile(join(folder, file), 'utf8')),
    )
    const runs = texts.flatMap((text) => text.split('\n').filter((line) => line !== ''))
    expect(new Set(runs)).toEqual(new Set(notes.map(({ payload }) => `${payload}.1`)))
    expect(runs).toHaveLength(200)
  },
)
