import { rmSync } from 'node:fs'
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { withTimeout } from '../../foundation/with-timeout.ts'

/** The folder of a service in which dev keeps what is its own. */
export const devFolderName = '.bossbus'

/** A `bossbus dev` that runs in a folder, and the database that it uses. */
interface RunningDev {
  readonly pid: number
  readonly url: string
}

const fileOf = (cwd: string): string => join(cwd, devFolderName, 'dev.json')

/** A server on this machine answers in less, or does not run. */
const answerMs = 2000

/**
 * Tells the commands that are run in the same folder which database this process uses. Only the user of this process may read it.
 *
 * @returns what takes it back. It happens anyway when the process ends, unless it is killed
 */
export async function announceDev(cwd: string, url: string): Promise<() => void> {
  const file = fileOf(cwd)
  await mkdir(join(cwd, devFolderName), { recursive: true })
  const running: RunningDev = { pid: process.pid, url }
  await writeFile(file, `${JSON.stringify(running)}\n`, { mode: 0o600 })
  // One that was there keeps its mode, and so does an old `.gitignore`. The URL may have a password.
  await chmod(file, 0o600)
  await writeFile(join(cwd, devFolderName, '.gitignore'), '*\n', { flag: 'wx' }).catch(() => {})
  const remove = (): void => {
    process.off('exit', remove)
    rmSync(file, { force: true })
  }
  process.once('exit', remove)
  return remove
}

/** The database of the dev that runs in this folder. Undefined if none does, or its server does not answer. */
export async function findRunningDev(cwd: string): Promise<string | undefined> {
  const running = await readFile(fileOf(cwd), 'utf8').then(parse, () => undefined)
  if (running === undefined || !isAlive(running.pid)) return undefined
  return (await answers(running.url)) ? running.url : undefined
}

function parse(text: string): RunningDev | undefined {
  try {
    const { pid, url } = JSON.parse(text) as Partial<Record<keyof RunningDev, unknown>>
    return typeof pid === 'number' && typeof url === 'string' ? { pid, url } : undefined
  } catch {
    return undefined
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    // That of another user.
    return (error as { readonly code?: string }).code === 'EPERM'
  }
}

async function answers(url: string): Promise<boolean> {
  const silent = (): void => {}
  const logger = { debug: silent, info: silent, warn: silent, error: silent }
  try {
    const { createDatabase } = await import('../../database/database.ts')
    const database = createDatabase(url, logger, 'pgboss')
    const isThere = database.query('select 1').then(
      () => true,
      () => false,
    )
    const answered = await withTimeout(isThere, answerMs, () => false)
    await withTimeout(database.close(), answerMs, () => {})
    return answered
  } catch {
    return false
  }
}

/** `bossbus dev on port 5433`, without the password that the URL may have. */
export function describeDev(url: string): string {
  const port = URL.canParse(url) ? new URL(url).port || '5432' : undefined
  return `that of bossbus dev${port === undefined ? '' : ` on port ${port}`}`
}
