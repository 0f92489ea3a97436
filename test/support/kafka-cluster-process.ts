/**
 * Three brokers of Kafka, in threads of this process: the mock cluster that librdkafka is tested with. It is told what to do by its parent,
 * and is ended without a word: where it crashes, no test does.
 */
import koffi from 'koffi'
import { librdkafkaPath, type KafkaCall } from './kafka-cluster.ts'

const nothing = 0
const library = koffi.load(librdkafkaPath ?? '')
const define = (signature: string): ((...args: unknown[]) => unknown) => library.func(signature)
const newConf = define('void *rd_kafka_conf_new()')
const set = define(
  'int rd_kafka_conf_set(void *conf, const char *name, const char *value, char *e, size_t n)',
)
const newHandle = define('void *rd_kafka_new(int type, void *conf, char *error, size_t size)')
const newCluster = define('void *rd_kafka_mock_cluster_new(void *handle, int brokers)')
const bootstraps = define('const char *rd_kafka_mock_cluster_bootstraps(void *cluster)')
const setVersions = define(
  'int rd_kafka_mock_set_apiversion(void *cluster, int16_t key, int16_t min, int16_t max)',
)
const createTopic = define(
  'int rd_kafka_mock_topic_create(void *cluster, const char *topic, int partitions, int replicas)',
)
const setDown = define('int rd_kafka_mock_broker_set_down(void *cluster, int32_t broker)')
const setUp = define('int rd_kafka_mock_broker_set_up(void *cluster, int32_t broker)')
const setLeader = define(
  'int rd_kafka_mock_partition_set_leader(void *cluster, const char *topic, int32_t partition, int32_t broker)',
)
const pushErrors = define(
  'void rd_kafka_mock_push_request_errors_array(void *cluster, int16_t key, size_t count, int *codes)',
)

const conf = newConf()
set(conf, 'log_level', '0', Buffer.alloc(512), 512)
const handle = newHandle(nothing, conf, Buffer.alloc(512), 512)
const cluster = newCluster(handle, 3)
// Newer forms of ListOffsets are announced and not understood.
setVersions(cluster, 2, 0, 3)

function checked(code: unknown): void {
  if (code !== 0) throw new Error(`librdkafka has answered ${String(code)}`)
}

function run(call: KafkaCall): void {
  if (call[0] === 'createTopic') checked(createTopic(cluster, call[1], call[2], 3))
  else if (call[0] === 'down') checked(setDown(cluster, call[1]))
  else if (call[0] === 'up') checked(setUp(cluster, call[1]))
  else if (call[0] === 'moveLeader') checked(setLeader(cluster, call[1], call[2], call[3]))
  else pushErrors(cluster, call[1], call[2].length, [...call[2]])
}

process.on('message', (call: KafkaCall) => {
  try {
    run(call)
    process.send?.({})
  } catch (error) {
    process.send?.({ error: String(error) })
  }
})
process.on('disconnect', () => process.exit(0))
process.send?.({ brokers: String(bootstraps(cluster)).split(',') })
