/** SNS and SQS on a port, with what they have been given on disk, so that they may be killed: `node fauxqs-process.ts PORT FOLDER`. */
import { startFauxqs } from 'fauxqs'

const [port = '0', dataDir = ''] = process.argv.slice(2)
const server = await startFauxqs({
  port: Number(port),
  logger: false,
  ...(dataDir === '' ? {} : { dataDir }),
})
console.log(`port ${server.port}`)
console.log('started')
