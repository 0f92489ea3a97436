import type { FastifyInstance } from 'fastify'

const signals = ['SIGTERM', 'SIGINT'] as const

/** Closes the app at the first SIGTERM or SIGINT. Further signals change nothing, because npm and shells send them twice. */
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
  // Registered first, so that it runs last: hooks run in reverse order.
  app.addHook('onClose', async () => {
    for (const signal of signals) process.off(signal, close)
  })
}
