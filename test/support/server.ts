import { randomUUID } from 'node:crypto'
import pg from 'pg'
import type { TestProject } from 'vitest/node'
import { createBus, defineEvents } from '../../src/index.ts'
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
  const admin = new pg.Client({ connectionString: server.url })
  await admin.connect()
  await admin.query(`create database ${templateDatabase}`)
  const url = new URL(server.url)
  url.pathname = `/${templateDatabase}`
  const bus = createBus({ database: url.toString(), events: defineEvents({}), source: 'tests' })
  await bus.migrate()
  await bus.stop()
  project.provide('serverUrl', server.url)
  project.provide('templateDatabase', templateDatabase)
  return async () => {
    await admin.query(`drop database if exists ${templateDatabase} with (force)`).catch(() => {})
    await admin.end()
    await server.stop()
  }
}
