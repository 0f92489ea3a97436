import type { Workload } from '../workload.ts'
import { latency } from './latency.ts'
import { publish } from './publish.ts'
import { throughput } from './throughput.ts'

/** In the order of the documentation. */
export const workloads: readonly Workload[] = [throughput, publish, latency]
