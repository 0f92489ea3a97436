import { afterAll, inject } from 'vitest'
import { asAdmin } from '../../src/testing/databases.ts'
import { createTestDatabase as cloneDatabase } from '../../src/testing/test-database.ts'
import { createTestDatabase, until, type TestDatabase } from './database.ts'

/** A database of the test's own, and what is in it. */
export interface Filled<T> {
  readonly database: TestDatabase
  readonly content: T
}

/**
 * A database that is filled once for all tests of a file, by the first one that asks; each gets a copy. Call it where the file describes
 * its tests.
 *
 * @param fill - closes its connections: a database that somebody is connected to cannot be copied
 */
export function shareTemplate<T>(fill: (url: string) => Promise<T>): () => Promise<Filled<T>> {
  let made: ReturnType<typeof make> | undefined

  async function make() {
    const { url, drop } = await cloneDatabase(inject('serverUrl'), inject('templateDatabase'))
    const name = new URL(url).pathname.slice(1)
    const content = await fill(url)
    await asAdmin(inject('serverUrl'), async (admin) => {
      await until('nobody is connected to the template', async () => {
        const { rows } = await admin.query('select from pg_stat_activity where datname = $1', [name])
        return rows.length === 0
      })
    })
    return { name, content, drop }
  }

  afterAll(async () => {
    await made?.then(
      async ({ drop }) => drop(),
      () => {},
    )
  })
  return async () => {
    made ??= make()
    const { name, content } = await made
    return { database: await createTestDatabase({ template: name }), content }
  }
}
