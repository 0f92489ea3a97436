import type { FastifyInstance } from 'fastify'

const signals = ['SIGTERM', 'SIGINT'] as const

/** Closes the app at the first signal that asks the process to end. Further ones change nothing: npm and shells send them twice. */
export function closeWithProcess(app: FastifyInstance): void {
  let closing: Promise<void> | undefined
  const close = (signal: NodeJS.Signals): void => {
    if (closing !== undefined) return
    app.log.info({ signal }, 'closing')
    closing = app.close().then(
      () => {},
      (error: unknown) => {
        app.log.error({ err: error }, 'the app could not be closed')
        process.exitCode = 1
      },
    )
  }
  for (const signal of signals) process.on(signal, close)
  // The last of its hooks: they run in reverse order.
  app.addHook('onClose', async () => {
    for (const signal of signals) process.off(signal, close)
  })
}
