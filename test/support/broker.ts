import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createConnection, createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { until } from './database.ts'

/** Programs of brokers, as Debian's packages install them. */
export const brokerPrograms = {
  nats: found('/usr/sbin/nats-server'),
  redis: found('/usr/bin/redis-server'),
  mosquitto: found('/usr/sbin/mosquitto'),
  rabbitmq: found('/usr/lib/rabbitmq/bin/rabbitmq-server'),
} as const

function found(path: string): string | undefined {
  return existsSync(path) ? path : undefined
}

/** A broker that a test has started. */
export interface Broker {
  readonly port: number
  /** Where it keeps its data; removed by `stop`. */
  readonly folder: string
  /** Ends it without a word. */
  readonly kill: () => Promise<void>
  /** Starts it again, with its data and on its port. */
  readonly start: () => Promise<void>
  /** Ends it for good. */
  readonly stop: () => Promise<void>
}

/** What a program is started with. */
export interface BrokerProgram {
  readonly program: string | undefined
  readonly args: (port: number, folder: string) => readonly string[] | Promise<readonly string[]>
  readonly env?: ((port: number, folder: string) => Readonly<Record<string, string>>) | undefined
  readonly port?: number | undefined
  /** Whether it answers; by default whether it accepts connections. */
  readonly isReady?: ((port: number) => Promise<boolean>) | undefined
}

/** Starts a broker on a free port, with a folder of its own. */
export async function startBroker(options: BrokerProgram): Promise<Broker> {
  const { program, args, env, isReady = accepts } = options
  if (program === undefined) throw new Error('the program of the broker is not installed')
  const port = options.port ?? (await freePort())
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-broker-'))
  let child: ChildProcess | undefined

  async function start(): Promise<void> {
    child = spawn(program ?? '', await args(port, folder), {
      stdio: 'ignore',
      // A group of its own, so that programs which it starts end with it.
      detached: true,
      env: { ...process.env, ...env?.(port, folder) },
    })
    await until('the broker answers', async () => isReady(port))
  }

  async function kill(): Promise<void> {
    const { pid, exitCode, signalCode } = child ?? {}
    if (child === undefined || pid === undefined || exitCode !== null || signalCode !== null) return
    const ended = new Promise((resolve) => child?.once('exit', resolve))
    process.kill(-pid, 'SIGKILL')
    await ended
  }

  await start()
  return {
    ...{ port, folder, kill, start },
    async stop() {
      await kill()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** A port of 127.0.0.1 that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => void server.close(resolve))
  return port
}

/** Whether something accepts connections on a port of 127.0.0.1. */
export async function accepts(port: number): Promise<boolean> {
  const socket = createConnection({ port, host: '127.0.0.1' })
  try {
    return await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    })
  } finally {
    socket.destroy()
  }
}
