import { readFile } from 'node:fs/promises'
import { arch, cpus, platform, release, totalmem } from 'node:os'

/** The machine on which the figures were measured. */
export interface Machine {
  readonly node: string
  readonly platform: string
  readonly cpuCount: number
  readonly cpuModel: string
  readonly memoryGb: number
  /** The versions of the contestants, by package. */
  readonly packages: Readonly<Record<string, string>>
}

const packages = [
  'bossbus',
  'pg-boss',
  'graphile-worker',
  'bullmq',
  'ioredis',
  'pg',
  'postgres',
  'drizzle-orm',
]

const root = new URL('../../', import.meta.url)

export async function describeMachine(): Promise<Machine> {
  const versions = await Promise.all(
    packages.map(async (name) => {
      const file = name === 'bossbus' ? 'package.json' : `node_modules/${name}/package.json`
      const { version } = JSON.parse(await readFile(new URL(file, root), 'utf8')) as { version: string }
      return [name, version] as const
    }),
  )
  return {
    node: process.versions.node,
    platform: `${platform()} ${release()} ${arch()}`,
    cpuCount: cpus().length,
    cpuModel: cpus()[0]?.model ?? 'unknown',
    memoryGb: Math.round(totalmem() / 1024 ** 3),
    packages: Object.fromEntries(versions),
  }
}
