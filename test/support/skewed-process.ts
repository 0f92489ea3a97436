/**
 * A process whose clock is wrong: `node skewed-process.ts URL HOURS`. It publishes one event for now and one for in two
 * seconds by the database's clock, and delivers; each event fails its first attempt.
 */
const [, , url = '', hours = '0'] = process.argv
const RealDate = Date
const skewMs = Number(hours) * 3_600_000
globalThis.Date = class extends RealDate {
  constructor(...args: [] | [number | string]) {
    super(args.length === 0 ? RealDate.now() + skewMs : args[0])
  }
  static override now(): number {
    return RealDate.now() + skewMs
  }
} as DateConstructor

const { createBus } = await import('../../src/index.ts')
const { paymentEvents } = await import('./catalogue.ts')
const bus = createBus({ database: url, events: paymentEvents, source: 'payment-service' })
bus.subscribe({
  name: 'skewed',
  events: ['note'],
  handler: (_event, { attempt }) => {
    if (attempt === 1) throw new Error('the first attempt fails')
  },
})
await bus.start()
await bus.tryPublish({ type: 'note', tenantId: 'a', payload: `now ${hours}` })
await bus.tryPublish({
  type: 'note',
  tenantId: 'a',
  payload: `later ${hours}`,
  availableAt: new Date(RealDate.now() + 2000),
})
process.on('SIGTERM', () => {
  void bus.stop().then(() => process.exit(0))
})
console.log('started')
