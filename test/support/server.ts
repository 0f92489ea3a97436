import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'
import { createDatabase, dropDatabase, migrate } from '../../src/testing/databases.ts'
import { startPostgres } from '../../src/testing/postgres.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** The server of this run. */
    serverUrl: string
    /** A database with the schema of the bus and of pg-boss, to clone. */
    templateDatabase: string
    /** An empty folder for the data of servers that tests start: see own-server.ts. */
    ownServerData: string
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
  const ownServerData = await mkdtemp(join(tmpdir(), 'bossbus-own-server-'))
  project.provide('ownServerData', ownServerData)
  return async () => {
    await dropDatabase(server.url, templateDatabase).catch(() => {})
    await server.stop()
    await rm(ownServerData, { recursive: true, force: true })
  }
}
