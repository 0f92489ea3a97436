import { setTimeout as pause } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { createDatabase, type Executor } from '../../src/database/database.ts'
import { recordingLogger } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'

test('a slow statement is left alone, one on a half-open connection fails, and so do the idle connections', async () => {
  const database = await createTestDatabase()
  const proxy = await startTcpProxy(database.url)
  const logger = recordingLogger()
  const own = createDatabase(proxy.url, logger)
  onTestFinished(async () => own.close())
  let cutCount = 0
  own.onConnectionsCut(() => (cutCount += 1))
  // Longer than the watchdog's patience, several times looked at.
  const slow = own.query('select 1 as one from pg_sleep(6)')
  await Promise.all([own.query('select 1'), own.query('select 2'), pause(3000)])
  expect((await slow).rows).toEqual([{ one: 1 }])
  expect(cutCount).toBe(0)
  expect(logger.lines).toEqual([])
  proxy.freeze()
  await expect(own.query('select 3')).rejects.toMatchObject({
    code: 'BUS_DATABASE_UNAVAILABLE',
    retryable: true,
  })
  expect(cutCount).toBe(1)
  await until('no connection of before is left', () => own.pool.totalCount === 0)
  expect((await own.query('select 4 as four')).rows).toEqual([{ four: 4 }])
})

test('a transaction of the bus is ended by the server when its process is silent for ten seconds', async () => {
  const { url } = await createTestDatabase()
  const own = createDatabase(url, recordingLogger())
  onTestFinished(async () => own.close())
  const limit = async (executor: Executor): Promise<unknown> =>
    (await executor.query('show idle_in_transaction_session_timeout')).rows
  const limited = [{ idle_in_transaction_session_timeout: '10s' }]
  expect(await own.transaction(limit)).toEqual(limited)
  expect(await limit(own)).not.toEqual(limited)
})

test('a connection to a server that takes no writes any more is replaced', async () => {
  const { url } = await createTestDatabase()
  const own = createDatabase(url, recordingLogger())
  onTestFinished(async () => own.close())
  await own.query('set default_transaction_read_only = on')
  const write = async (): Promise<unknown> => own.query('create table public.written (n int)')
  await expect(write()).rejects.toMatchObject({ sqlState: '25006' })
  await until('it is gone', () => own.pool.totalCount === 0)
  await write()
})
