import { randomUUID } from 'node:crypto'
import type { TestProject } from 'vitest/node'
import { createDatabase, dropDatabase, migrate } from '../../src/testing/databases.ts'
import { startPostgres } from '../../src/testing/postgres.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** The server of this run. */
    serverUrl: string
    /** A database with the schema of the bus and of pg-boss, to clone. */
    templateDatabase: string
  }
}

/** One server a run, and one migrated database on it that every test clones. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await startPostgres({
    settings: ['max_connections=300', 'fsync=off', 'full_page_writes=off'],
  })
  console.log(`Tests run on ${server.description}`)
  const templateDatabase = `bossbus_template_${randomUUID().slice(0, 8)}`
  await migrate(await createDatabase(server.url, templateDatabase))
  project.provide('serverUrl', server.url)
  project.provide('templateDatabase', templateDatabase)
  return async () => {
    await dropDatabase(server.url, templateDatabase).catch(() => {})
    await server.stop()
  }
}
