import { expect, onTestFinished, test } from 'vitest'
import { stderrLogger } from '../../../src/foundation/logger.ts'
import { createDatabase, type Database } from '../../../src/database/database.ts'
import { createListenTest } from '../../../src/outbox/relay/listen-test.ts'
import { createTestDatabase } from '../../support/database.ts'

async function openListening() {
  const { url, rows } = await createTestDatabase()
  const database = createDatabase(url, stderrLogger)
  onTestFinished(async () => database.close())
  const session = await database.openSession()
  onTestFinished(async () => session.end().catch(() => {}))
  const kill = async (): Promise<unknown> => rows('select pg_terminate_backend($1)', [session.backendPid])
  return { database, session, kill }
}

/** The database, with something that happens before or after each statement. */
function withMoment(database: Database, moment: (notify: () => Promise<unknown>) => Promise<void>): Database {
  const query = (async (text: string, values?: unknown[]) => {
    let answer: unknown
    await moment(async () => {
      answer = await database.query(text, values)
    })
    return answer ?? { rows: [] }
  }) as Database['query']
  return { ...database, query }
}

test('a session that hears its notification passes', async () => {
  const { database, session } = await openListening()
  expect(await createListenTest(database, session, 'instance').start()).toBe(true)
})

test('a session whose notification does not arrive does not pass', async () => {
  const { database, session } = await openListening()
  const silent = withMoment(database, async () => {})
  expect(await createListenTest(silent, session, 'instance').start()).toBe(false)
})

test('a session that is lost while it is tested is an error, not a pooler', async () => {
  const { database, session, kill } = await openListening()
  const killed = withMoment(database, async (notify) => {
    await kill()
    await notify()
  })
  await expect(createListenTest(killed, session, 'instance').start()).rejects.toThrow(/terminat|connection/i)
})

test('a session that is lost while the notification is waited for is an error, not a pooler', async () => {
  const { database, session, kill } = await openListening()
  const killedLater = withMoment(database, async () => {
    setTimeout(() => void kill(), 300)
  })
  await expect(createListenTest(killedLater, session, 'instance').start()).rejects.toThrow(
    /terminat|connection/i,
  )
})

test('a session that is lost later does not pass when it is tested again', async () => {
  const { database, session, kill } = await openListening()
  const listenTest = createListenTest(database, session, 'instance')
  expect(await listenTest.start()).toBe(true)
  expect(await listenTest.repeat()).toBe(true)
  await kill()
  expect(await listenTest.repeat()).toBe(false)
})
