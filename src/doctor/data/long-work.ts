import { counted } from '../../foundation/counted.ts'
import { readRetentionState } from '../../retention/retention-state.ts'
import { found, type DoctorFinding } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

/** A part of an operation takes seconds. */
const stalledMinutes = 5

/** An erasure of any subject is done after this. */
const erasureMinutes = 10

/** Archives are rewritten by the rounds of retention, once an hour. */
const archiveHours = 24

/** A round an hour would have dropped it. */
const overdueDays = 2

interface StalledOperation extends Record<string, unknown> {
  readonly id: string
  readonly kind: string
  readonly actor: string
  readonly dueAt: string
}

/** Operations that run, and that no process goes on with. */
export const operationsCheck: Check = {
  name: 'operations',
  needs: 'bus',
  async run({ read }) {
    const rows = await read<StalledOperation>(
      `select id, kind, actor, next_part_at::text as "dueAt" from bus.operations
       where state = 'running' and next_part_at < clock_timestamp() - interval '${stalledMinutes} minutes'
       order by next_part_at limit 100`,
    )
    const [first] = rows
    if (first === undefined) return []
    return [
      found(
        'operation-stalled',
        `No process goes on with ${rows.length === 1 ? `the ${first.kind} ${first.id}` : `${rows.length} operations, such as the ${first.kind} ${first.id}`}: what it is to deliver or to remove waits`,
        `Start a process whose bus runs more than \`nothing\`, or cancel it: npx bossbus operations cancel ${first.id}`,
        { operations: rows },
      ),
    ]
  },
}

interface Erasure extends Record<string, unknown> {
  readonly id: string
  readonly tenantId: string
  readonly startedAt: string
}

/** Erasures that were interrupted. The subject is personal data: it stays in the table. */
export const erasuresCheck: Check = {
  name: 'erasures',
  needs: 'bus',
  async run({ read }): Promise<readonly DoctorFinding[]> {
    const rows = await read<Erasure>(
      `select e.id, e.tenant_id as "tenantId", e.started_at::text as "startedAt" from bus.erasures e
       where e.finished_at is null and e.started_at < clock_timestamp() - interval '${erasureMinutes} minutes'
         and not exists (
           select from bus.erasures d where d.tenant_id = e.tenant_id and d.subject = e.subject and d.id > e.id and d.finished_at is not null)
       order by e.id limit 100`,
    )
    const [archives] = await read<{ files: number; oldest: string | null }>(
      `select count(*)::int as files, min(requested_at)::text as oldest from bus.archive_erasures
       where rewritten_at is null and requested_at < clock_timestamp() - interval '${archiveHours} hours'`,
    )
    const findings: DoctorFinding[] = []
    const [first] = rows
    if (first !== undefined)
      findings.push(
        found(
          'erasure-unfinished',
          `${rows.length === 1 ? 'An erasure was' : `${rows.length} erasures were`} interrupted: payloads of the subject may still be read and delivered`,
          `Repeat it: npx bossbus erase <tenant> <subject>, with those of: select tenant_id, subject from bus.erasures where id = '${first.id}';`,
          { erasures: rows },
        ),
      )
    if (archives !== undefined && archives.files > 0)
      findings.push(
        found(
          'archive-rewrite-overdue',
          `${counted(archives.files, 'file')} of archives still ${archives.files === 1 ? 'holds' : 'hold'} events of subjects that were erased more than a day ago`,
          'Start a process with `retention.archive`, or, where the configuration has it: npx bossbus archive rewrite',
          { files: archives.files, oldestRequestAt: archives.oldest },
        ),
      )
    return findings
  },
}

/** Rounds of retention that fail, and ranges of the log that should have gone. */
export const retentionCheck: Check = {
  name: 'retention',
  needs: 'bus',
  async run({ database, now }): Promise<readonly DoctorFinding[]> {
    const { next, lastError, lastRoundAt } = await readRetentionState(database)
    const findings: DoctorFinding[] = []
    if (lastError !== undefined)
      findings.push(
        found(
          'retention-failing',
          `The last round of retention failed: ${lastError}. The log grows until one succeeds`,
          `Mend the cause, then: npx bossbus prune`,
          { lastError, lastRoundAt },
        ),
      )
    const overdueMs = overdueDays * 86_400_000
    if (next?.range.isDue === true && now().getTime() - next.dueAt.getTime() > overdueMs) {
      const { range, dueAt, holds } = next
      const held = holds.map(
        ({ kind, subscription, count }) =>
          `${count} ${kind}${subscription === undefined ? '' : ` of ${subscription}`}`,
      )
      findings.push(
        found(
          'retention-overdue',
          `The log of ${range.name} should have gone on ${dueAt.toISOString().slice(0, 10)}${held.length > 0 ? `, and is held back by events that were not delivered: ${held.slice(0, 3).join(', ')}` : ''}`,
          held.length > 0
            ? 'Deliver, redrive or discard them: npx bossbus subscriptions list, npx bossbus dead-letters groups'
            : 'Start a process that delivers events (and has `retention.archive`, if the policy says so), or: npx bossbus prune',
          { range: range.name, dueAt, holds, lastRoundAt },
        ),
      )
    }
    return findings
  },
}
