/** A process that receives a queue into a bus: `node sqs-receiving-process.ts DATABASE QUEUE PORT`. */
import { SQSClient } from '@aws-sdk/client-sqs'
import { createBus } from '../../src/index.ts'
import { sqsSource } from '../../src/transports/adapters/sqs.ts'
import { paymentEvents } from './catalogue.ts'

const [database = '', queueUrl = '', port = ''] = process.argv.slice(2)
const client = new SQSClient({
  region: 'us-east-1',
  endpoint: `http://127.0.0.1:${port}`,
  credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
})
const bus = createBus({ database, events: paymentEvents, source: 'payment-service' })
bus.receive({
  name: 'in',
  from: sqsSource({ client, queueUrl, visibilityTimeoutSeconds: 10, waitTimeSeconds: 1 }),
  map({ body, key: orderingKey }) {
    const payload: unknown = JSON.parse(Buffer.from(body).toString())
    return { type: 'note', tenantId: 't', orderingKey, payload }
  },
})
await bus.start()
console.log('started')
