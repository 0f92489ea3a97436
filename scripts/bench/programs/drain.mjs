/**
 * A process that only handles a backlog: the built package, plain JavaScript, and JSON over IPC. It neither strips
 * TypeScript nor loads the schema library of a catalogue, so that only the memory of the bus counts.
 */
/* oxlint-disable typescript/no-unsafe-return, typescript/no-unsafe-call, typescript/no-unsafe-member-access, typescript/no-unsafe-assignment, typescript/no-unsafe-argument -- plain JavaScript, outside the TypeScript project */
import { readFileSync } from 'node:fs'
import { createBus, defineEvents } from 'bossbus'

/** A Standard Schema that accepts every payload. */
const anything = { '~standard': { version: 1, vendor: 'bench', validate: (value) => ({ value }) } }

process.on('SIGINT', () => {})
process.on('disconnect', () => process.exit(0))
process.once('message', ({ id, argument: { url, eventCount } }) => {
  let handledCount = 0
  const start = performance.now()
  const bus = createBus({
    database: url,
    events: defineEvents({ 'order.placed': { schema: anything } }),
    source: 'bench',
  })
  bus.subscribe({
    name: 'subscriber-0',
    events: ['order.placed'],
    handler: () => {
      handledCount += 1
      if (handledCount === eventCount) void finish()
    },
  })
  bus.start().catch((error) => process.send({ id, error: error.message }))

  async function finish() {
    const elapsedMs = performance.now() - start
    await bus.stop()
    process.send({
      id,
      result: { maxRssMb: maxRssKb() / 1024, eventsPerSecond: (eventCount / elapsedMs) * 1000 },
    })
  }
})

/** On Linux, getrusage() includes what the parent had resident at the fork; the kernel's own high-water mark does not. */
function maxRssKb() {
  try {
    return Number(/^VmHWM:\s*(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1])
  } catch {
    return process.resourceUsage().maxRSS
  }
}
