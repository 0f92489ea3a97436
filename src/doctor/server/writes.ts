import { found } from '../check/finding.ts'
import type { Check } from '../check/check.ts'
import { hasOwnStorage } from './own-storage.ts'

/** Whether this server takes what publishers and workers write. */
export const writableCheck: Check = {
  name: 'writes',
  needs: 'server',
  async run({ facts: { isStandby, isWritable } }) {
    if (isWritable) return []
    return [
      found(
        'read-only-server',
        isStandby
          ? 'The server is a standby: nothing can be published or delivered through this URL'
          : 'The server takes no writes (`transaction_read_only`): nothing can be published or delivered through this URL',
        isStandby
          ? 'Give the bus the URL of the primary, or name all hosts: postgres://one,two/db?target_session_attrs=read-write'
          : 'alter role … or database … reset default_transaction_read_only; or give the bus another URL.',
        { isStandby },
      ),
    ]
  },
}

/** Commits that wait for a standby that is not there. */
export const synchronousStandbyCheck: Check = {
  name: 'synchronous standbys',
  needs: 'writes',
  async run(context) {
    const [row] = await context.read<{ names: string; connected: number; sees_all: boolean }>(
      `select current_setting('synchronous_standby_names') as names,
         (select count(*)::int from pg_stat_replication r where r.sync_state in ('sync', 'quorum')) as connected,
         pg_has_role('pg_read_all_stats', 'usage') as sees_all
       where current_setting('synchronous_commit') not in ('off', 'local')`,
    )
    // Without that role one sees no states.
    if (row === undefined || row.names.trim() === '' || row.connected > 0 || !row.sees_all) return []
    if (await hasOwnStorage(context)) return []
    return [
      found(
        'synchronous-standby-missing',
        `No standby of \`synchronous_standby_names = '${row.names}'\` is connected: every commit waits for one, so publishers and workers hang`,
        `Start the standby, or go on without: alter system set synchronous_standby_names = ''; select pg_reload_conf();`,
        { names: row.names },
      ),
    ]
  },
}
