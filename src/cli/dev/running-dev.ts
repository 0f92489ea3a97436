import { readFileSync, rmSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { silentLogger } from '../../foundation/logger.ts'
import { withTimeout } from '../../foundation/with-timeout.ts'
import { withoutPassword } from '../command/next-page.ts'

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
  // The URL may have a password, and a file that is there would keep its mode.
  await rm(file, { force: true })
  await writeFile(file, `${JSON.stringify(running)}\n`, { mode: 0o600 })
  await writeFile(join(cwd, devFolderName, '.gitignore'), '*\n', { flag: 'wx' }).catch(() => {})
  const remove = (): void => {
    process.off('exit', remove)
    // Another one may have been started in this folder since.
    if (readRunning(file)?.pid === process.pid) rmSync(file, { force: true })
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

function readRunning(file: string): RunningDev | undefined {
  try {
    return parse(readFileSync(file, 'utf8'))
  } catch {
    return undefined
  }
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
  } catch {
    // Also one of another user, which would not be the dev whose file this is.
    return false
  }
}

async function answers(url: string): Promise<boolean> {
  try {
    const { createDatabase } = await import('../../database/database.ts')
    const database = createDatabase(url, silentLogger, 'pgboss')
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

/** `that of bossbus dev: postgres://…`, without the password that the URL may have. */
export function describeDev(url: string): string {
  return `that of bossbus dev: ${withoutPassword(url)}`
}
