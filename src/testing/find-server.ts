import { startPostgres } from './postgres.ts'

let server: Promise<{ readonly url: string }> | undefined

/**
 * The server for tests that do not name one: found once for the process, and stopped with it.
 * @throws an error that states what was tried, and how to proceed
 */
export async function findServer(): Promise<string> {
  server ??= startPostgres({
    settings: ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off', 'max_connections=200'],
    endsWithProcess: true,
  })
  try {
    return (await server).url
  } catch (error) {
    server = undefined
    throw error
  }
}
