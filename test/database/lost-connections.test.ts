import { expect, onTestFinished, test } from 'vitest'
import { createDatabase } from '../../src/database/database.ts'
import { recordingLogger } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'

test('idle connections that are lost together are one warning, and later ones are another', async () => {
  const { url, rows } = await createTestDatabase()
  const logger = recordingLogger()
  const own = createDatabase({ connectionString: url, max: 8, application_name: 'burst' }, logger)
  onTestFinished(async () => own.close())
  const lose = async (): Promise<void> => {
    await Promise.all(Array.from({ length: 6 }, async () => own.query('select pg_sleep(0.2)')))
    await rows(`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'burst'`)
    await until('all are gone', () => own.pool.totalCount === 0)
  }
  const warnings = () =>
    logger.lines.filter(({ message }) => message === 'an idle database connection was lost')
  await lose()
  const lostAt = performance.now()
  expect(warnings()).toHaveLength(1)
  await until('the burst is over', () => performance.now() - lostAt > 1100)
  await lose()
  expect(warnings()).toHaveLength(2)
})
