import { existsSync, readdirSync } from 'node:fs'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { startOwnPostgres } from '../../src/testing/postgres.ts'
import { recordingLogger, testBus } from '../support/bus.ts'
import { until } from '../support/database.ts'
import { recordFigure } from '../support/figures.ts'
import { isFullForm } from '../support/form.ts'

/** Lets the server see another time. Debian has it in the package `libfaketime`. */
const library = findLibrary()

test.skipIf(library === undefined || !isFullForm)(
  'the clock of the server goes an hour back, and an hour forward: nothing waits for it, nothing runs twice (needs libfaketime)',
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'bossbus-faketime-'))
    const file = join(folder, 'offset')
    const setClock = async (offset: string): Promise<void> => writeFile(file, `${offset}\n`)
    await setClock('+0')
    await chmod(folder, 0o755)
    const server = await startOwnPostgres(['max_connections=50', 'fsync=off'], {
      environment: {
        LD_PRELOAD: library ?? '',
        FAKETIME_TIMESTAMP_FILE: file,
        FAKETIME_NO_CACHE: '1',
        DONT_FAKE_MONOTONIC: '1',
      },
    })
    const client = new pg.Client({ connectionString: server.url })
    await client.connect()
    onTestFinished(async () => {
      await client.end()
      await server.stop()
      await rm(folder, { recursive: true, force: true })
    })
    const serverIsAhead = async (): Promise<number> =>
      Number(
        (await client.query<{ s: string }>('select extract(epoch from clock_timestamp()) as s')).rows[0]?.s,
      ) -
      Date.now() / 1000
    const logger = recordingLogger()
    const bus = testBus(server.url, { logger })
    const runs = new Map<string, number>()
    const ran: string[] = []
    const count = (what: string): number => {
      runs.set(what, (runs.get(what) ?? 0) + 1)
      return runs.get(what) ?? 0
    }
    const retry = { maxAttempts: 5, delaySeconds: 2, backoff: false }
    const failOnce = (payload: unknown): void => {
      if (count(String(payload)) === 1) throw new Error('first')
      ran.push(String(payload))
    }
    bus.subscribe({
      name: 'plain',
      events: ['note'],
      retry,
      handler: (e) => failOnce(`plain ${String(e.payload)}`),
    })
    bus.subscribe({
      name: 'once',
      events: ['note'],
      retry,
      mode: 'exactly-once',
      handler: (e) => failOnce(`once ${String(e.payload)}`),
    })
    bus.subscribe({
      name: 'lines',
      events: ['note'],
      retry,
      ordered: true,
      handler: (e) => failOnce(`lines ${String(e.payload)}`),
    })
    // In hand while the clock is set, and for longer than its heartbeat.
    bus.subscribe({
      ...{ name: 'slow', events: ['payment.refunded'], heartbeatSeconds: 10, timeoutSeconds: 120 },
      handler: async () => {
        count('slow')
        await pause(25_000)
        ran.push('slow')
      },
    })
    await bus.migrate()
    await bus.start()
    await bus.tryPublish({ type: 'payment.refunded', tenantId: 'a', payload: { paymentId: '1' } })
    await until('the slow one runs', () => runs.get('slow') === 1)

    let published = 0
    const publish = async (n: number): Promise<void> => {
      for (let i = 0; i < n; i += 1) {
        await bus.tryPublish({
          type: 'note',
          tenantId: 'a',
          orderingKey: `k${published % 4}`,
          payload: published,
        })
        published += 1
      }
    }
    const tookMs: number[] = []
    for (const offset of ['-1h', '+0']) {
      await publish(20)
      await setClock(offset)
      await until(
        'the server shows it',
        async () => Math.abs((await serverIsAhead()) - (offset === '-1h' ? -3600 : 0)) < 60,
      )
      const since = performance.now()
      await publish(20)
      await until(
        'everything is delivered',
        () => ran.filter((what) => what !== 'slow').length === 3 * published,
      )
      tookMs.push(performance.now() - since)
    }
    await until('the slow one is done', () => ran.includes('slow'))
    expect(runs.get('slow')).toBe(1)
    expect([...runs].filter(([what, times]) => what !== 'slow' && times !== 2)).toEqual([])
    for (let key = 0; key < 4; key += 1) {
      const inOrder = ran.filter((what) => what.startsWith('lines') && Number(what.split(' ')[1]) % 4 === key)
      expect(inOrder).toEqual(inOrder.toSorted((a, b) => Number(a.split(' ')[1]) - Number(b.split(' ')[1])))
    }
    expect(
      logger.lines
        .filter(({ message }) => message === 'the clock of the database server was set')
        .map(({ fields }) => Math.sign(Number(fields['setSeconds']))),
    ).toEqual([-1, 1])
    recordFigure(
      'clock of the server set back by 1 h, then forward, under way',
      `all delivered after ${tookMs.map((ms) => (ms / 1000).toFixed(1)).join(' and ')} s, run twice 0`,
    )
  },
)

function findLibrary(): string | undefined {
  const folders = ['/usr/lib', '/usr/local/lib'].filter(existsSync)
  for (const folder of folders)
    for (const below of ['', ...readdirSync(folder)]) {
      const file = join(folder, below, 'faketime', 'libfaketime.so.1')
      if (existsSync(file)) return file
    }
  return undefined
}
