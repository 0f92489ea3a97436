import { defineSubscription } from '../../../src/index.ts'
import { events } from '../events.ts'

export const logEverything = defineSubscription(events, {
  name: 'log-everything',
  events: ['**'],
  handler: (event, { log }) => log.info({ type: event.type }, 'an event'),
})
