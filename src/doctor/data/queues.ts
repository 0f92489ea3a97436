import { counted } from '../../foundation/counted.ts'
import {
  deleteQueueSql,
  readMissingQueues,
  readOrphanedQueues,
} from '../../delivery/jobs/registered-queues.ts'
import { namesOf } from '../../health/finding.ts'
import { found, sqlRemedy, type DoctorFinding } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

/** Queues without a subscription, and subscriptions without a queue. */
export const queuesCheck: Check = {
  name: 'queues of subscriptions',
  needs: 'both schemas',
  async run({ database }): Promise<readonly DoctorFinding[]> {
    const orphaned = await readOrphanedQueues(database)
    const missing = await readMissingQueues(database)
    const jobCount = orphaned.reduce((sum, queue) => sum + queue.jobCount, 0)
    const findings: DoctorFinding[] = []
    if (missing.length > 0)
      findings.push(
        found(
          'queue-missing',
          `Subscriptions have no queue: ${namesOf(missing)}. The relay cannot hand events over to them`,
          'Start the service that declares them as the owner of the schemas, or call bus.migrate() in it.',
          { queues: missing },
        ),
      )
    if (orphaned.length > 0)
      findings.push(
        found(
          'queue-orphaned',
          `Queues belong to no subscription: ${namesOf(orphaned.map(({ name }) => name))}. ${jobCount === 0 ? 'They are empty' : `${counted(jobCount, 'job')} ${jobCount === 1 ? 'waits' : 'wait'} there, and nobody runs ${jobCount === 1 ? 'it' : 'them'}`}`,
          `${jobCount === 0 ? '' : 'Deploy the service that declares them or, if their events are not wanted: '}${sqlRemedy(
            'As the owner of the schema of pg-boss',
            orphaned.map(({ name }) => deleteQueueSql(database, name)),
          )}`,
          { queues: orphaned, jobCount },
        ),
      )
    return findings
  },
}
