import type { CheckContext } from '../check/check.ts'

/**
 * Whether the server keeps what is committed in a storage of its own, and not in files of the machine. Aurora (which has `aurora_version()`) runs
 * with `full_page_writes = off`; Neon with `fsync = off`, and with a synchronous standby, `walproposer`, that is its storage. None of that is a fault
 * there.
 */
export async function hasOwnStorage({ read }: Pick<CheckContext, 'read'>): Promise<boolean> {
  const [row] = await read<{ is_own: boolean }>(
    `select exists (select from pg_proc where proname = 'aurora_version' and pronamespace = 'pg_catalog'::regnamespace)
       or exists (select from pg_roles where rolname = 'neon_superuser')
       or exists (select from pg_settings where name like 'neon.%') as is_own`,
  )
  return row?.is_own === true
}
