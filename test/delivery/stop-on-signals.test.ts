import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { stopOnSignals } from '../../src/index.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { startProgram, type ProgramProcess } from '../support/processes.ts'

const refunded = { type: 'payment.refunded', tenantId: 'a', payload: { paymentId: 'p' } } as const

/** A process in which a handler runs. */
async function startHandling(scene: string): Promise<ProgramProcess & { readonly database: TestDatabase }> {
  const database = await createTestDatabase()
  const program = await startProgram('signalled-process.ts', database.url, scene)
  await testBus(database.url).tryPublish(refunded)
  await program.says('handling')
  return { ...program, database }
}

const delivered = 'select count(*) from bus.deliveries where delivered_at is not null'

test.each(['SIGTERM', 'SIGINT'] as const)(
  'at %s the bus stops: its handler finishes, a request is answered and publishes, and the process ends by itself',
  async (signal) => {
    const { child, output, exited, says, database } = await startHandling('finishing')
    const address = output.find((line) => line.startsWith('http://')) ?? ''
    const answer = fetch(address).then(async (response) => response.text())
    await says('asked')
    child.kill(signal)
    expect(await answer).toBe('published')
    expect(await exited).toBe(0)
    expect(output.slice(output.indexOf('asked') + 1)).toEqual(
      expect.arrayContaining([signal, 'handled', 'closed', 'stopped', 'exit 0, 0 listeners']),
    )
    const [last] = output.filter((line) => ['handled', 'closed', 'stopped'].includes(line)).slice(-1)
    expect(last).toBe('stopped')
    expect(await database.count(delivered)).toBe(1)
    expect(await database.count(`select count(*) from bus.events where type = 'note'`)).toBe(1)
  },
)

test('a signal that comes twice at once, as from npm, is one', async () => {
  const { child, output, exited, database } = await startHandling('finishing')
  child.kill('SIGINT')
  child.kill('SIGTERM')
  child.kill('SIGINT')
  expect(await exited).toBe(0)
  expect(output).toContain('handled')
  expect(await database.count(delivered)).toBe(1)
})

test('a further signal, later, ends the process at once', async () => {
  const { child, output, says, exited } = await startHandling('hanging')
  child.kill('SIGTERM')
  await says('SIGTERM')
  // The time within which it counts as the same signal.
  await pause(1100)
  expect(output).not.toContain('stopped')
  child.kill('SIGINT')
  expect(await exited).toBe(130)
  expect(output).not.toContain('stopped')
})

test('what the service cannot close ends the process with an error, when the bus has stopped', async () => {
  const { child, output, exited } = await startHandling('failing')
  child.kill('SIGTERM')
  expect(await exited).toBe(1)
  expect(output).toContain('handled')
  expect(output).toContain('stopped')
  expect(output.join('\n')).toContain('the server could not be closed')
})

test('without its listeners a signal does what it did before', async () => {
  const { child, output } = await startHandling('unsubscribed')
  child.kill('SIGTERM')
  expect(await once(child, 'close')).toEqual([null, 'SIGTERM'])
  expect(output).not.toContain('SIGTERM')
})

test('signals of another kind may be named, and listeners leave with the stop', async () => {
  const { url } = await createTestDatabase()
  const bus = testBus(url)
  const stopped = Promise.withResolvers<void>()
  const before = process.listenerCount('SIGUSR2')
  const remove = stopOnSignals(bus, {
    signals: ['SIGUSR2', 'SIGUSR2'],
    graceMs: 0,
    onStopped: () => stopped.resolve(),
  })
  onTestFinished(remove)
  expect(process.listenerCount('SIGUSR2')).toBe(before + 1)
  process.emit('SIGUSR2')
  await stopped.promise
  expect(bus.state).toBe('stopped')
  await until('nothing listens', () => process.listenerCount('SIGUSR2') === before)
})

test.each([
  [{ graceMs: -1 }, /graceMs/],
  [{ signals: [] }, /signals/],
  [{ signals: ['SIGKILL'] }, /signals/],
  [{ signals: ['TERM'] }, /signals/],
  [{ onSignal: 1 }, /onSignal/],
  [{ onStopped: 'now' }, /onStopped/],
  [{ gracems: 1 }, /Did you mean `graceMs`/],
])('%o is refused, and nothing listens', async (options, message) => {
  const bus = testBus('postgres://localhost:1/none')
  const before = process.listenerCount('SIGTERM')
  expect(() => stopOnSignals(bus, options as never)).toThrow(
    expect.objectContaining({
      code: 'BUS_INVALID_OPTION',
      message: expect.stringMatching(message) as string,
    }),
  )
  expect(process.listenerCount('SIGTERM')).toBe(before)
})
