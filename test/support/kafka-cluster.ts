import { fork } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** Debian's package `librdkafka1` has it. Undefined where there is none. */
export const librdkafkaPath = [
  '/usr/lib/x86_64-linux-gnu/librdkafka.so.1',
  '/usr/lib/aarch64-linux-gnu/librdkafka.so.1',
  '/usr/lib64/librdkafka.so.1',
  '/usr/local/lib/librdkafka.so.1',
  '/opt/homebrew/lib/librdkafka.1.dylib',
].find((path) => existsSync(path))

/** What the process of the brokers is told, by the names of {@link KafkaCluster}. */
export type KafkaCall =
  | readonly ['createTopic', name: string, partitionCount: number]
  | readonly ['down', broker: number]
  | readonly ['up', broker: number]
  | readonly ['moveLeader', topic: string, partition: number, broker: number]
  | readonly ['fail', apiKey: number, codes: readonly number[]]

/** Brokers of Kafka in a process of their own: the mock cluster that librdkafka is tested with. */
export interface KafkaCluster {
  /** `127.0.0.1:port` of each broker. */
  readonly brokers: string[]
  readonly createTopic: (name: string, partitionCount: number) => Promise<void>
  /** Closes the connections of a broker, 1 to 3, and refuses new ones. No leader moves by itself. */
  readonly down: (broker: number) => Promise<void>
  readonly up: (broker: number) => Promise<void>
  readonly moveLeader: (topic: string, partition: number, broker: number) => Promise<void>
  /** The next requests of this kind are answered with these codes; with -195, the connection is closed. */
  readonly fail: (apiKey: number, codes: readonly number[]) => Promise<void>
  readonly stop: () => Promise<void>
}

/** The keys of requests. */
export const apiKeys = { produce: 0, fetch: 1, metadata: 3, offsetCommit: 8, heartbeat: 12 } as const

interface Answer {
  readonly brokers?: string[]
  readonly error?: string
}

/** Starts three brokers. */
export async function startKafkaCluster(): Promise<KafkaCluster> {
  const child = fork(fileURLToPath(new URL('kafka-cluster-process.ts', import.meta.url)))
  const waiting: PromiseWithResolvers<Answer>[] = []
  child.on('message', (answer: Answer) => {
    const next = waiting.shift()
    if (answer.error === undefined) next?.resolve(answer)
    else next?.reject(new Error(answer.error))
  })
  const exited = new Promise<void>((resolve) => {
    child.once('exit', (code, signal) => {
      for (const { reject } of waiting) reject(new Error(`The brokers have ended: ${signal ?? code}`))
      resolve()
    })
  })

  async function answered(send: () => void): Promise<Answer> {
    const answer = Promise.withResolvers<Answer>()
    waiting.push(answer)
    send()
    return answer.promise
  }

  async function call(...given: KafkaCall): Promise<void> {
    await answered(() => child.send(given))
  }

  const { brokers = [] } = await answered(() => {})
  return {
    brokers,
    createTopic: async (name, partitionCount) => call('createTopic', name, partitionCount),
    down: async (broker) => call('down', broker),
    up: async (broker) => call('up', broker),
    moveLeader: async (topic, partition, broker) => call('moveLeader', topic, partition, broker),
    fail: async (apiKey, codes) => call('fail', apiKey, codes),
    async stop() {
      child.kill('SIGKILL')
      await exited
    },
  }
}
