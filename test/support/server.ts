import { randomUUID } from 'node:crypto'
import { rm } from 'node:fs/promises'
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
    /** Where the data of a server with these schemas lies as soon as a test needs a server of its own. */
    templateServer: string
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
  const templateServer = join(tmpdir(), `bossbus-template-${randomUUID()}`)
  project.provide('templateServer', templateServer)
  return async () => {
    await rm(templateServer, { recursive: true, force: true })
    await dropDatabase(server.url, templateDatabase).catch(() => {})
    await server.stop()
  }
}
