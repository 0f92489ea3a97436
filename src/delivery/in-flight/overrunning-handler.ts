import type { StoredEvent } from '../../events/envelope.ts'
import type { Overrun } from '../attempts/attempt.ts'
import { markOverrunningKey } from '../ordering/overrunning-key.ts'
import type { JobRun } from './job-run.ts'
import type { WorkerParts } from './worker-parts.ts'

/** Watches a handler that still runs although its event is over: it keeps its slot until it has ended. */
export function watchInSlot(
  { jobs, overruns }: WorkerParts,
  job: JobRun,
  event: StoredEvent,
  overrun: Overrun,
): void {
  overruns.watch(event, job.attempt, overrun)
  jobs.outlive(job.kind, overrun, () => jobs.onCapacity())
}

/** The same for an event of a key, which waits for the handler: if it ignores its signal, the key is marked for other processes to see. */
export function watchInKey(worker: WorkerParts, job: JobRun, event: StoredEvent, overrun: Overrun): void {
  worker.overruns.watch(event, job.attempt, overrun, () => markKey(worker, job))
}

function markKey({ context, settlements }: WorkerParts, job: JobRun): void {
  const { overrun, claim } = job
  if (job.isDone || overrun === undefined || overrun.delivered) return
  // It may be given up at a stop, when the key is requeued.
  job.marking = settlements
    .retryUntilDone(async () => markOverrunningKey(context, claim, overrun))
    .catch(() => {})
}
