/** Leaves a route out of the document that @fastify/swagger makes of the app. Fastify writes into it. */
export const hiddenSchema = (): object => ({ hide: true })
