// @module-tag slow
import { expect, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { recordFigure } from '../support/figures.ts'
import { isFullForm } from '../support/form.ts'
import { startProgram } from '../support/processes.ts'
import { roomFor } from '../support/slowness.ts'

// The default takes half a minute: the long form alone waits for it.
test.each([...(isFullForm ? ([['default', 60]] as const) : []), ['10', 30]] as const)(
  'the event of a worker that is killed in its handler runs again: heartbeatSeconds %s, within %i seconds',
  async (heartbeatSeconds, limitSeconds) => {
    const database = await createTestDatabase()
    const victim = await startProgram('holding-process.ts', database.url, heartbeatSeconds)
    const bus = testBus(database.url)
    await database.db.transaction(async (tx) => bus.publish(tx, { type: 'note', tenantId: 'a', payload: 1 }))
    await victim.says('holding')
    let attempts: number[] = []
    bus.subscribe({
      name: 'held',
      events: ['note'],
      heartbeatSeconds: heartbeatSeconds === 'default' ? undefined : Number(heartbeatSeconds),
      handler: (_event, { attempt }) => void (attempts = [...attempts, attempt]),
    })
    await bus.start()
    victim.child.kill('SIGKILL')
    const startedAt = performance.now()
    await until('it has run again', () => attempts.length > 0)
    const tookMs = performance.now() - startedAt
    console.log(`heartbeatSeconds ${heartbeatSeconds}: ran again ${Math.round(tookMs)} ms after the kill`)
    recordFigure(
      `worker SIGKILLed mid-handler, heartbeatSeconds ${heartbeatSeconds === 'default' ? '30 (default)' : heartbeatSeconds}`,
      `its event ran again after ${(tookMs / 1000).toFixed(1)} s`,
    )
    expect(tookMs).toBeLessThan(roomFor(limitSeconds * 1000))
    expect(attempts).toEqual([2])
  },
)
