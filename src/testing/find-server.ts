import { startPostgres } from './postgres.ts'

let server: Promise<{ readonly url: string }> | undefined

/**
 * The server for tests that name none: found once for the process, and ended with it.
 * @throws an error that says what was tried, and what to do
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
