import type { Contestant } from '../contestant.ts'
import { bossbus } from './bossbus.ts'
import { bullmq } from './bullmq.ts'
import { graphileWorker } from './graphile-worker.ts'
import { pgBossAlone } from './pg-boss.ts'
import { plainSql } from './plain-sql.ts'

/** In the order they take their turns. */
export const contestants: readonly Contestant[] = [bossbus, pgBossAlone, graphileWorker, bullmq, plainSql]
