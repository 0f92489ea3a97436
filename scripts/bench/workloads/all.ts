import type { Workload } from '../workload.ts'
import { growth } from './growth.ts'
import { idle } from './idle.ts'
import { latency } from './latency.ts'
import { memory } from './memory.ts'
import { modes } from './modes.ts'
import { processes } from './processes.ts'
import { publish } from './publish.ts'
import { snapshot } from './snapshot.ts'
import { tenancy } from './tenancy.ts'
import { throughput } from './throughput.ts'

/** In the order of the documentation. */
export const workloads: readonly Workload[] = [
  throughput,
  publish,
  latency,
  growth,
  snapshot,
  memory,
  idle,
  modes,
  processes,
  tenancy,
]
