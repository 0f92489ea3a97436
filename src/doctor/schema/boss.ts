import { readBossDrift, readBuilds, readReindexCommands } from '../../delivery/jobs/boss-drift.ts'
import { someOf } from '../../health/finding.ts'
import { found, sqlRemedy, type DoctorFinding } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

const maxObjects = 100

/** The schema of pg-boss against what this version of pg-boss makes, by pg-boss's own comparison. */
export const bossDriftCheck: Check = {
  name: 'objects of the schema of pg-boss',
  needs: 'both schemas',
  async run({ database, read }): Promise<readonly DoctorFinding[]> {
    const objects = await readBossDrift(database, read)
    if (objects.length === 0) return []
    const names = someOf(objects.map(({ name, problem }) => `${name} ${problem}`))
    const lost = objects.filter(({ sql }) => sql === undefined)
    return [
      found(
        'boss-schema-changed',
        `The schema of pg-boss is not as pg-boss made it (${names}): fetches and settlements fail or get slow`,
        lost.length === objects.length
          ? 'No statement brings that back: undo the change, or restore a backup.'
          : `${sqlRemedy(
              'As the owner of the schema',
              objects.map(({ sql }) => sql),
            )}${lost.length > 0 ? ' Undo the other changes, or restore a backup.' : ''}`,
        { objects: objects.slice(0, maxObjects), count: objects.length },
      ),
    ]
  },
}

/** What pg-boss builds in the background after an update, and has not finished. */
export const bossBuildsCheck: Check = {
  name: 'background builds of pg-boss',
  needs: 'both schemas',
  async run({ database, read }) {
    const builds = await readBuilds(database, read)
    if (builds.length === 0) return []
    const failed = builds.filter(({ status }) => status === 'failed')
    return [
      found(
        'boss-builds-unfinished',
        `pg-boss has not finished ${builds.length} of its builds after an update${failed.length > 0 ? `, and ${failed.length} have failed` : ''}: until then fetches may be slower`,
        failed.length > 0
          ? sqlRemedy(
              'Mend the cause, then as the owner of the schema',
              failed.map(({ command }) => command),
            )
          : 'Wait, while a process of the bus runs: it goes on with them.',
        { builds: builds.slice(0, maxObjects), count: builds.length },
      ),
    ]
  },
}

/** Indexes of jobs that have kept the size of a backlog that is gone, by pg-boss's own measure. */
export const bossBloatCheck: Check = {
  name: 'size of the indexes of jobs',
  needs: 'both schemas',
  async run({ database, read }) {
    const commands = await readReindexCommands(database, read)
    if (commands.length === 0) return []
    return [
      found(
        'index-bloated',
        `${commands.length === 1 ? 'An index' : `${commands.length} indexes`} of jobs kept the size of an earlier backlog: each vacuum reads all of it, and fetches some of it`,
        sqlRemedy('As the owner of the schema, one after the other', commands),
        { commands: commands.slice(0, maxObjects), count: commands.length },
      ),
    ]
  },
}
