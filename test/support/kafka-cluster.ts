import { existsSync } from 'node:fs'

/** Debian's package `librdkafka1` has it. Undefined where there is none. */
export const librdkafkaPath = [
  '/usr/lib/x86_64-linux-gnu/librdkafka.so.1',
  '/usr/lib/aarch64-linux-gnu/librdkafka.so.1',
  '/usr/lib64/librdkafka.so.1',
  '/usr/local/lib/librdkafka.so.1',
  '/opt/homebrew/lib/librdkafka.1.dylib',
].find((path) => existsSync(path))

/** Brokers of Kafka in this process, in threads of their own: the mock cluster that librdkafka is tested with. */
export interface KafkaCluster {
  /** `127.0.0.1:port` of each broker. */
  readonly brokers: string[]
  readonly createTopic: (name: string, partitionCount: number) => void
  /** Closes the connections of a broker, 1 to 3, and refuses new ones. No leader moves by itself. */
  readonly down: (broker: number) => void
  readonly up: (broker: number) => void
  readonly moveLeader: (topic: string, partition: number, broker: number) => void
  /** The next requests of this kind are answered with these codes; with -195, the connection is closed. */
  readonly fail: (apiKey: number, codes: readonly number[]) => void
  readonly stop: () => void
}

/** The keys of requests. */
export const apiKeys = { produce: 0, fetch: 1, metadata: 3, offsetCommit: 8, heartbeat: 12 } as const

const nothing = 0

/** Starts three brokers. */
export async function startKafkaCluster(): Promise<KafkaCluster> {
  const { default: koffi } = await import('koffi')
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
  const destroyCluster = define('void rd_kafka_mock_cluster_destroy(void *cluster)')
  const destroyHandle = define('void rd_kafka_destroy(void *handle)')

  const conf = newConf()
  set(conf, 'log_level', '0', Buffer.alloc(512), 512)
  const handle = newHandle(nothing, conf, Buffer.alloc(512), 512)
  const cluster = newCluster(handle, 3)
  // Newer forms of ListOffsets are announced and not understood.
  setVersions(cluster, 2, 0, 3)

  function checked(code: unknown): void {
    if (code !== 0) throw new Error(`librdkafka has answered ${String(code)}`)
  }

  return {
    brokers: String(bootstraps(cluster)).split(','),
    createTopic: (name, partitionCount) => checked(createTopic(cluster, name, partitionCount, 3)),
    down: (broker) => checked(setDown(cluster, broker)),
    up: (broker) => checked(setUp(cluster, broker)),
    moveLeader: (topic, partition, broker) => checked(setLeader(cluster, topic, partition, broker)),
    fail: (apiKey, codes) => void pushErrors(cluster, apiKey, codes.length, [...codes]),
    stop() {
      destroyCluster(cluster)
      destroyHandle(handle)
    },
  }
}
