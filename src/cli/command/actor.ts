import { userInfo } from 'node:os'

/** Who makes a change, for the audit: the flag, the environment, else the user of the operating system. */
export function actorOf(flag: string | undefined, env: Readonly<Record<string, string | undefined>>): string {
  return (
    [flag, env['BOSSBUS_BY'], userName(), env['USER']].find((name) => name !== undefined && name !== '') ??
    'unknown'
  )
}

/** Containers may run as a user without a name. */
function userName(): string | undefined {
  try {
    return userInfo().username
  } catch {
    return undefined
  }
}
