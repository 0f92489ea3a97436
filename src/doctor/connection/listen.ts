import { randomUUID } from 'node:crypto'
import { createListenTest } from '../../outbox/relay/listen-test.ts'
import { createFinding } from '../../health/finding.ts'
import { found, type DoctorFinding } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

/** Whether a session of the bus gets the notifications of another one, by the test that a running bus makes. */
export const listenCheck: Check = {
  name: 'LISTEN and NOTIFY',
  needs: 'writes',
  async run({ database, facts }): Promise<readonly DoctorFinding[]> {
    const session = await database.openSession()
    try {
      if (await createListenTest(database, session, randomUUID()).start()) return []
      if (!facts.isPooled)
        return [
          createFinding(
            'notifications-lost',
            'Notifications of the database do not arrive: events are delivered up to a second later',
          ),
        ]
      return [
        found(
          'pooler-in-transaction-mode',
          'The URL of the bus leads through a pooler that changes the session with each transaction: notifications are lost, so events come up to a second later, and idle processes poll',
          `Give the bus a direct URL (\`database\` of createBus; BOSSBUS_DATABASE_URL for this command), or set pool_mode = session. A service may stay behind the pooler: with postgres.js it needs postgres(url, { prepare: false }).`,
        ),
      ]
    } finally {
      void session.end().catch(() => {})
    }
  },
}
