/** Runs one contestant's throughput task in this process. */
import { serve } from '../child.ts'
import type { ThroughputTask } from '../contestant.ts'
import { contestants } from '../contestants/all.ts'

serve({
  async run({ contestant, task }: { contestant: string; task: ThroughputTask }) {
    const found = contestants.find(({ name }) => name === contestant)
    if (found === undefined) throw new Error(`no contestant ${contestant}`)
    const { throughput } = await found.load()
    return throughput(task)
  },
})
