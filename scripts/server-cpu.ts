import { readdir, readFile } from 'node:fs/promises'

const ticksPerSecond = 100

/**
 * Processor time that a server has used so far, in milliseconds: of its processes and of those that have ended. 0 where there is no /proc.
 *
 * @param postmaster - the process id
 */
export async function serverCpuMs(postmaster: number | undefined): Promise<number> {
  if (postmaster === undefined) return 0
  let ticks = 0
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const fields = await statOf(Number(name))
    const [parent = 0, user = 0, system = 0, endedUser = 0, endedSystem = 0] = [1, 11, 12, 13, 14].map(
      (index) => fields?.[index],
    )
    if (Number(name) === postmaster) ticks += user + system + endedUser + endedSystem
    else if (parent === postmaster) ticks += user + system
  }
  return (ticks * 1000) / ticksPerSecond
}

/** The process that has started another one: the postmaster, for a process that serves a connection. Undefined where there is no /proc. */
export async function parentOf(pid: number): Promise<number | undefined> {
  return (await statOf(pid))?.[1]
}

/** The fields of /proc/<pid>/stat from the state on, which is not a number. Undefined for a process that has ended. */
async function statOf(pid: number): Promise<number[] | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  return stat
    ?.slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number)
}
