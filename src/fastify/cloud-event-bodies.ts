import type { FastifyInstance } from 'fastify'

/** Structured mode, one event or a batch. Both are JSON. */
const cloudEventType = /^application\/cloudevents(?:-batch)?\+json\s*(?:;|$)/i

/**
 * Parses bodies of `application/cloudevents+json` and `application/cloudevents-batch+json` like other JSON of the app,
 * with its `bodyLimit` and its protection against `__proto__`. A parser that the app itself adds for these types takes
 * precedence.
 */
export function parseCloudEventBodies(app: FastifyInstance): void {
  const { onProtoPoisoning, onConstructorPoisoning } = app.initialConfig
  const parseJson = app.getDefaultJsonParser(onProtoPoisoning ?? 'error', onConstructorPoisoning ?? 'error')
  app.addContentTypeParser(cloudEventType, { parseAs: 'string' }, parseJson)
}
