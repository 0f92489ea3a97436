import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { assertNodeVersion } from '../../src/foundation/node-version.ts'

const textOf = async (path: string): Promise<string> =>
  readFile(new URL(`../../${path}`, import.meta.url), 'utf8')

/** Has a process believe that it is another Node. */
const pretend = (version: string): string =>
  `--import=data:text/javascript,${encodeURIComponent(
    `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '${version}' } })`,
  )}`

async function run(version: string, ...args: readonly string[]): Promise<{ code: number; err: string }> {
  return promisify(execFile)(process.execPath, [pretend(version), ...args]).then(
    ({ stderr }) => ({ code: 0, err: stderr }),
    (error: { code: number; stderr: string }) => ({ code: error.code, err: error.stderr }),
  )
}

describe('the version of Node', () => {
  test.each(['22.12.0', '22.22.1', '23.0.0', '24.21.0', '26.1.0', '100.0.0', '25.0.0-nightly2026'])(
    '%s is taken',
    (version) => {
      expect(() => assertNodeVersion(version)).not.toThrow()
    },
  )

  test.each(['22.11.0', '22.0.0', '21.7.3', '20.20.2', '18.19.1', '8.17.0', '22.2.0'])(
    '%s is refused',
    (version) => {
      expect(() => assertNodeVersion(version)).toThrow(
        expect.objectContaining({
          code: 'BUS_NODE_UNSUPPORTED',
          message: `bossbus needs Node 22.12 or newer, and this is Node ${version}`,
        }) as Error,
      )
    },
  )

  test('is looked at first of all by createBus', async () => {
    const index = new URL('../../src/index.ts', import.meta.url).href
    const program = `import { createBus } from '${index}'; try { createBus() } catch ({ code }) { console.error(code) }`
    const args = ['--input-type=module-typescript', '--eval', program]
    expect(await run('20.20.2', ...args)).toEqual({ code: 0, err: 'BUS_NODE_UNSUPPORTED\n' })
    expect(await run('22.12.0', ...args)).toEqual({ code: 0, err: 'BUS_INVALID_OPTION\n' })
  })

  test('is looked at by the command before it loads anything', async () => {
    const main = new URL('../../src/cli/main.ts', import.meta.url).pathname
    const { code, err } = await run('20.20.2', main, '--help')
    expect({ code, err }).toEqual({
      code: 2,
      err: 'BUS_NODE_UNSUPPORTED: bossbus needs Node 22.12 or newer, and this is Node 20.20.2\n',
    })
    expect(await run('22.12.0', main, '--help')).toEqual({ code: 0, err: '' })
  })

  test('is the same wherever it is written down', async () => {
    const { engines } = JSON.parse(await textOf('package.json')) as { engines: { node: string } }
    const boss = JSON.parse(await textOf('node_modules/pg-boss/package.json')) as typeof engines & {
      engines: { node: string }
    }
    expect(engines.node).toBe('>=22.12')
    expect(boss.engines.node).toBe('>=22.12.0')
    const lock = JSON.parse(await textOf('package-lock.json')) as {
      packages: Readonly<Record<string, { engines?: { node: string } }>>
    }
    expect(lock.packages['']?.engines).toEqual(engines)
    for (const page of ['README.md', 'CONTRIBUTING.md', 'docs/errors.md'])
      expect(await textOf(page)).toMatch(/Node 22\.12 or newer/)
  })
})
