import type { Db } from 'pg-boss'
import type { BusClient } from '../../database/bus-client.ts'
import type { Commit } from '../../database/database.ts'
import { queryPrepared } from '../../database/prepared.ts'

/** A call of pg-boss that sends one statement. */
export type BossCall = (options: { readonly db: Db }) => Promise<unknown>

/**
 * Makes calls of pg-boss in an open transaction, and commits it, in one round trip: each statement is sent without
 * waiting for the answer of the previous one. Resolves to the results of the calls, after the commit has succeeded. If
 * a statement fails, so do all later ones, and the server rolls back instead of committing; if a call fails before it
 * has sent anything, nothing after it is sent.
 */
export async function sendTogether(
  client: BusClient,
  commit: Commit,
  calls: readonly BossCall[],
): Promise<readonly unknown[]> {
  return client.pipelined(async () => {
    const answers: Promise<unknown>[] = []
    let failed = false
    for (const call of calls) {
      const { promise: sent, resolve } = Promise.withResolvers<void>()
      const db: Db = {
        executeSql: async (text, values) => {
          const answer = queryPrepared(client, text, values)
          resolve()
          return answer
        },
      }
      const answer = call({ db })
      answers.push(answer)
      const answered = answer.then(
        () => {},
        () => {
          failed = true
        },
      )
      await Promise.race([sent, answered])
      if (failed) break
    }
    if (!failed) answers.push(commit())
    const settled = await Promise.allSettled(answers)
    const refusal = settled.find((result) => result.status === 'rejected')
    if (refusal !== undefined) throw refusal.reason
    return settled.slice(0, calls.length).map((result) => (result as PromiseFulfilledResult<unknown>).value)
  })
}
