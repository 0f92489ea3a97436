/** A process that receives the messages of a topic: `node kafka-receiving-process.ts URL BROKERS TOPIC`. */
import { Consumer } from '@platformatic/kafka'
import { createBus } from '../../src/index.ts'
import { kafkaSource } from '../../src/transports/adapters/kafka-source.ts'
import { paymentEvents } from './catalogue.ts'

const [database = '', brokers = '', topic = ''] = process.argv.slice(2)
const consumer = new Consumer({
  clientId: 'receiving',
  groupId: topic,
  bootstrapBrokers: brokers.split(','),
  maxWaitTime: 50,
  sessionTimeout: 6000,
  heartbeatInterval: 500,
})
const bus = createBus({
  database,
  events: paymentEvents,
  source: 'payment-service',
  logger: { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} },
})
bus.receive({
  name: 'from-kafka',
  from: kafkaSource({ consumer, topics: topic }),
  map: ({ body, key }) => ({
    type: 'note',
    tenantId: 'acme',
    orderingKey: key,
    payload: JSON.parse(Buffer.from(body).toString()) as unknown,
  }),
})
await bus.start()
console.log('started')
