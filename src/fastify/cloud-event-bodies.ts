import type { FastifyInstance } from 'fastify'

/** Structured mode, one event or a batch: JSON both. */
const cloudEventType = /^application\/cloudevents(?:-batch)?\+json\s*(?:;|$)/i

/**
 * Lets an app read bodies of `application/cloudevents+json` and `application/cloudevents-batch+json` as it reads other JSON: with
 * its own `bodyLimit`, and its own protection from `__proto__`. A parser that the app itself adds for these types goes first.
 */
export function parseCloudEventBodies(app: FastifyInstance): void {
  const { onProtoPoisoning, onConstructorPoisoning } = app.initialConfig
  const parseJson = app.getDefaultJsonParser(onProtoPoisoning ?? 'error', onConstructorPoisoning ?? 'error')
  app.addContentTypeParser(cloudEventType, { parseAs: 'string' }, parseJson)
}
