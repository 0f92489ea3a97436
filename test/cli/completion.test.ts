import { spawn, spawnSync } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { stripVTControlCharacters } from 'node:util'
import { describe, expect, onTestFinished, test } from 'vitest'
import { commands } from '../../src/cli/commands/all.ts'
import { createFolder, runCli } from '../support/cli.ts'
import { until } from '../support/database.ts'

async function scriptFile(shell: string): Promise<string> {
  const folder = await createFolder()
  const { code, out } = await runCli(folder, ['completion', shell])
  expect(code).toBe(0)
  const file = join(folder, 'completion')
  await writeFile(file, `${out}\n`)
  return file
}

const has = (shell: string): boolean => spawnSync(shell, ['--version']).status === 0
const skipped = (shell: string): string => (has(shell) ? '' : ` (SKIPPED: needs ${shell})`)

/** What is typed, and some of what may follow, and what may not. */
const cases: readonly (readonly [
  typed: readonly string[],
  some: readonly string[],
  not: readonly string[],
])[] = [
  [[''], ['status', 'events', 'catalog', 'completion'], ['find', '--json']],
  [['ev'], ['events'], ['status']],
  [
    ['events', ''],
    ['find', 'show', 'trace', 'tail', 'publish'],
    ['events', 'status'],
  ],
  [['events', 'f'], ['find'], ['show']],
  [
    ['events', 'find', '--t'],
    ['--type', '--tenant', '--to', '--timeout'],
    ['--from', '--wait'],
  ],
  [
    ['events', 'find', '--order', ''],
    ['newest', 'oldest'],
    ['--type', 'find'],
  ],
  [['events', 'find', '--order', 'n'], ['newest'], ['oldest']],
  [['events', 'find', '--tenant', 'acme', '--j'], ['--json'], ['--to']],
  [['--database', 'events', 'events', 'p'], ['publish'], ['find']],
  [
    ['events', 'find', '--status', 'd'],
    ['dead', 'delivered'],
    ['waiting', 'doctor'],
  ],
  [['completion', ''], ['bash', 'zsh', 'fish'], ['status']],
  [['events', 'publish', 'order.placed', '--w'], ['--wait', '--wait-time'], ['--json']],
  [['status', '--json', '--c'], ['--config'], ['--json']],
]

describe.skipIf(!has('bash'))(`the completion of bash${skipped('bash')}`, () => {
  test('completes what may follow', async () => {
    const file = await scriptFile('bash')
    const complete = (typed: readonly string[]): string[] => {
      const ended = spawnSync(
        'bash',
        [
          ...[
            '--norc',
            '-c',
            'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); __bossbus_complete; printf "%s\\n" "${COMPREPLY[@]}"',
          ],
          ...[file, 'bossbus', ...typed],
        ],
        { encoding: 'utf8' },
      )
      expect(ended.stderr).toBe('')
      return ended.stdout.split('\n').filter(Boolean)
    }
    for (const [typed, some, not] of cases) {
      const found = complete(typed)
      expect({ typed, found }).toEqual({ typed, found: expect.arrayContaining([...some]) as unknown[] })
      expect({ typed, unwanted: found.filter((each) => not.includes(each)) }).toEqual({ typed, unwanted: [] })
    }
    expect(complete(['events', 'find', '--order', '=', 'o'])).toEqual(['oldest'])
    expect(complete(['events', 'find', '--tenant', ''])).toEqual([])
    expect(complete(['--config', file.slice(0, -2)])).toEqual([file])
    expect(complete(['nonsense', 'find', '--'])).toEqual([])
  })

  test('knows every command and is registered for bossbus', async () => {
    const file = await scriptFile('bash')
    const { stdout } = spawnSync('bash', ['--norc', '-c', 'source "$0"; complete -p bossbus', file], {
      encoding: 'utf8',
    })
    expect(stdout.trim()).toBe('complete -F __bossbus_complete bossbus')
    for (const { name } of commands)
      expect(
        spawnSync('bash', ['--norc', '-c', 'source "$0"; __bossbus_options "$1"', file, name], {
          encoding: 'utf8',
        }).stdout,
      ).toContain('--json\t')
  })
})

test.skipIf(!has('fish'))(`fish completes what may follow${skipped('fish')}`, async () => {
  const file = await scriptFile('fish')
  for (const [typed, some, not] of cases) {
    const ended = spawnSync(
      'fish',
      ['--no-config', '-c', 'source $argv[1]; complete -C $argv[2]', file, `bossbus ${typed.join(' ')}`],
      {
        encoding: 'utf8',
      },
    )
    const found = ended.stdout
      .split('\n')
      .filter(Boolean)
      .map((line) => line.split('\t')[0])
    expect(ended.stderr).toBe('')
    expect({ typed, found }).toEqual({ typed, found: expect.arrayContaining([...some]) as unknown[] })
    expect({ typed, unwanted: found.filter((each) => not.includes(each ?? '')) }).toEqual({
      typed,
      unwanted: [],
    })
  }
})

test.skipIf(!has('zsh') || !has('script'))(
  `zsh completes what a person types${skipped('zsh')}${skipped('script')}`,
  async () => {
    const file = await scriptFile('zsh')
    const child = spawn('script', ['--quiet', '--command', 'zsh -f -i', '/dev/null'], {
      env: { ...process.env, TERM: 'dumb', PS1: '> ', HOME: await createFolder() },
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    onTestFinished(() => void child.kill())
    let out = ''
    child.stdout
      .setEncoding('utf8')
      .on('data', (text: string) => void (out += stripVTControlCharacters(text)))
    const type = async (text: string, expected: RegExp): Promise<void> => {
      out = ''
      child.stdin.write(text)
      await until(`it shows ${String(expected)}`, async () => expected.test(out)).catch((error: unknown) => {
        throw new Error(`${(error as Error).message}: ${JSON.stringify(out)}`)
      })
    }
    await type(
      `autoload -Uz compinit; compinit -u -D; source ${file}; bossbus() { echo "ran [$*]" }; echo re"ady"\n`,
      /ready/,
    )
    await type('bossbus ev\tpub\t order --un\t\n', /ran \[events publish order --unchecked\]/)
    await type(
      'bossbus events find --order old\t --tenan\t acme\n',
      /ran \[events find --order oldest --tenant acme\]/,
    )
    expect(out).toContain('ran')
  },
)

test('another shell is refused', async () => {
  const { code, err } = await runCli(await createFolder(), ['completion', 'csh'])
  expect(code).toBe(2)
  expect(err).toBe('Expected one of bash, zsh, fish, got csh')
})
