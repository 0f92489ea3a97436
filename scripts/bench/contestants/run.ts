/** Runs one contestant's throughput task in this process: `node run.ts '{"contestant": "bossbus", "task": {…}}'`. */
import { reportFrom } from '../child.ts'
import type { ThroughputTask } from '../contestant.ts'
import { contestants } from './all.ts'

await reportFrom(async ({ contestant, task }: { contestant: string; task: ThroughputTask }) => {
  const found = contestants.find(({ name }) => name === contestant)
  if (found === undefined) throw new Error(`no contestant ${contestant}`)
  return found.throughput(task)
})
