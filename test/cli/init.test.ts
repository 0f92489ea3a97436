import { spawnSync } from 'node:child_process'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { createFolder, runCli } from '../support/cli.ts'
import { createServiceFolder } from '../support/service-folder.ts'

const tsc = fileURLToPath(new URL('../../node_modules/typescript/bin/tsc', import.meta.url))

const files = async (folder: string): Promise<string[]> =>
  (await readdir(folder, { recursive: true })).filter((name) => !name.startsWith('node_modules')).toSorted()
const read = async (folder: string, name: string): Promise<string> => readFile(join(folder, name), 'utf8')
const json = async (folder: string, name: string): Promise<Record<string, unknown>> =>
  JSON.parse(await read(folder, name)) as Record<string, unknown>

/** Compiles projects in folders beside each other in one run: most of its time is for the types of the packages. Errors, by project. */
function compile(folder: string): ReadonlyMap<string, string> {
  const { stdout, stderr } = spawnSync(process.execPath, [tsc, '--noEmit', '--pretty', 'false'], {
    cwd: folder,
    encoding: 'utf8',
  })
  // What is not of these files is the source of the bus, which has settings of its own.
  const errors = `${stdout}${stderr}`
    .split('\n')
    .filter((line) => /^(?:\w+\/(?:src|bossbus\.config)|error)/.test(line))
  return new Map(
    [...Map.groupBy(errors, (line) => line.split('/')[0] ?? '')].map(([name, lines]) => [
      name,
      lines.join('\n'),
    ]),
  )
}

const commonJsInTypeScript = { name: '@acme/Shop', devDependencies: { typescript: '^7' } }

describe('bossbus init', () => {
  test('writes a project into an empty folder', async () => {
    const folder = await createFolder()
    const { code, out, err } = await runCli(folder, ['init', '--yes', '--source', 'shop'])
    expect({ code, out }).toMatchObject({
      code: 0,
      out: expect.stringContaining('created  src/main.ts') as string,
    })
    expect(err).toContain('npx bossbus dev')
    expect(await files(folder)).toEqual([
      ...[
        '.gitignore',
        'bossbus.config.ts',
        'package.json',
        'src',
        'src/events.ts',
        'src/main.ts',
        'src/orders.ts',
      ],
      ...['src/subscriptions.ts', 'tsconfig.json'],
    ])
    expect(await json(folder, 'package.json')).toMatchObject({
      ...{
        name: 'shop',
        private: true,
        type: 'module',
        scripts: { dev: 'bossbus dev', start: 'node src/main.ts' },
      },
      dependencies: { bossbus: expect.any(String) as string, fastify: expect.any(String) as string },
    })
  })

  test('writes projects that compile under strict TypeScript', async () => {
    const folder = await createServiceFolder()
    const projects = ['modules', 'commonjs', 'broken']
    for (const name of projects) {
      await mkdir(join(folder, name))
      if (name === 'commonjs')
        await writeFile(join(folder, name, 'package.json'), JSON.stringify(commonJsInTypeScript))
      expect((await runCli(join(folder, name), ['init', '--yes'])).code).toBe(0)
    }
    const [options, ...others] = await Promise.all(
      projects.map(async (name) => (await json(folder, `${name}/tsconfig.json`))['compilerOptions']),
    )
    expect(others).toEqual([options, options])
    await writeFile(
      join(folder, 'tsconfig.json'),
      JSON.stringify({
        compilerOptions: options,
        include: projects.flatMap((name) => [`${name}/src`, `${name}/bossbus.config.*`]),
      }),
    )
    // The compiler does look.
    const events = join(folder, 'broken/src/events.ts')
    await writeFile(events, (await readFile(events, 'utf8')).replace('totalCents', 'total'))
    const errors = compile(folder)
    expect([...errors.keys()]).toEqual(['broken'])
    expect(errors.get('broken')).toMatch(/src\/subscriptions.ts.*totalCents/)
  })

  test.each([
    ['a CommonJS project in TypeScript', commonJsInTypeScript, 'mts'],
    ['an ES module project in JavaScript', { name: '@acme/Shop', type: 'module' }, 'js'],
    ['a CommonJS project in JavaScript', { name: '@acme/Shop' }, 'mjs'],
  ])('writes files for %s', async (_, packageJson, extension) => {
    const folder = await createServiceFolder()
    await writeFile(join(folder, 'package.json'), JSON.stringify(packageJson, undefined, '\t'))
    expect((await runCli(folder, ['init'])).code).toBe(0)
    expect(await files(folder)).toContain(`src/main.${extension}`)
    expect(await read(folder, `bossbus.config.${extension}`)).toContain('source: "shop"')
    const checked = spawnSync(process.execPath, ['--check', join(folder, `src/main.${extension}`)], {
      encoding: 'utf8',
    })
    expect(checked.stderr).toBe('')
    const catalogue = await runCli(folder, ['catalog', 'export'])
    expect(catalogue.out).toContain('"order.placed"')
  })

  test('adds to package.json and .gitignore what is not there, and nothing the second time', async () => {
    const folder = await createFolder({
      'package.json': `{\n    "name": "shop",\n    "type": "module",\n    "scripts": { "dev": "mine" },\n    "dependencies": { "zod": "^3.25.0" }\n}\n`,
      '.gitignore': '/node_modules\ndist',
      'tsconfig.json': '{}',
    })
    const first = await runCli(folder, ['init'])
    expect(first.out).toContain('changed  package.json')
    expect(first.err).toContain('allowImportingTsExtensions')
    expect(await read(folder, 'package.json')).toMatch(/^\{\n {4}"name": "shop"/)
    expect(await json(folder, 'package.json')).toMatchObject({
      scripts: { dev: 'mine', start: 'node src/main.ts' },
      dependencies: { zod: '^3.25.0', fastify: '^5.0.0' },
    })
    expect(await read(folder, '.gitignore')).toBe('/node_modules\ndist\n.bossbus/\n')
    expect(await read(folder, 'tsconfig.json')).toBe('{}')
    const before = await Promise.all(
      (await files(folder)).filter((name) => name !== 'src').map(async (name) => read(folder, name)),
    )
    const second = await runCli(folder, ['init'])
    expect(second.out).not.toMatch(/^(?:created|changed|overwritten)/m)
    const after = await Promise.all(
      (await files(folder)).filter((name) => name !== 'src').map(async (name) => read(folder, name)),
    )
    expect(after).toEqual(before)
  })

  test('overwrites a file only if a person says so', async () => {
    const folder = await createFolder()
    await mkdir(join(folder, 'src'))
    await writeFile(join(folder, 'src/main.ts'), 'mine')
    const cases = [
      [['init', '--yes'], {}, 2, /src\/main.ts exists and differs, and --yes overwrites nothing/],
      [['init', '--no-input'], { answers: ['y'] }, 2, /Nobody can be asked here/],
      [['init'], { answers: ['n'] }, 1, /Nothing was changed/],
    ] as const
    for (const [args, person, expected, message] of cases) {
      const { code, err } = await runCli(folder, args, {}, person)
      expect({ code, err }).toEqual({ code: expected, err: expect.stringMatching(message) as string })
      expect(await files(folder)).toEqual(['src', 'src/main.ts'])
      expect(await read(folder, 'src/main.ts')).toBe('mine')
    }
    expect((await runCli(folder, ['init', '--yes', '--folder', 'src/orders'])).code).toBe(0)
    expect(await read(folder, 'src/main.ts')).toBe('mine')
    expect(await read(folder, 'bossbus.config.ts')).toContain("from './src/orders/events.ts'")
    expect((await runCli(folder, ['init'], {}, { answers: ['y'] })).code).toBe(0)
    expect(await read(folder, 'src/main.ts')).toContain('Fastify')
  })

  test.each([
    ['a folder outside', '--folder', '../elsewhere', /^Expected --folder to be a folder of this project/],
    ['an absolute folder', '--folder', '/tmp/x', /^Expected --folder/],
    ['a folder with a quote', '--folder', "a'b", /^Expected --folder/],
    ['a name that is too long', '--source', 'x'.repeat(256), /^Expected --source to have at most 255/],
    ['another language', '--language', 'cobol', /^Expected --language to be one of typescript, javascript/],
  ])('refuses %s, and writes nothing', async (_, flag, value, message) => {
    const folder = await createFolder()
    const { code, err } = await runCli(folder, ['init', flag, value])
    expect(code).toBe(2)
    expect(err).toMatch(message)
    expect(await files(folder)).toEqual([])
  })

  test('writes nothing with --dry-run, and nothing beside a package.json that is broken', async () => {
    const empty = await createFolder()
    const { code, out } = await runCli(empty, ['init', '--dry-run', '--json'])
    expect(code).toBe(0)
    expect(JSON.parse(out)).toMatchObject({
      dryRun: true,
      files: expect.arrayContaining([{ path: 'src/main.ts', what: 'created' }]) as unknown[],
    })
    expect(await files(empty)).toEqual([])
    const broken = await createFolder({ 'package.json': '{oops' })
    expect((await runCli(broken, ['init'])).err).toMatch(/^package.json is not a JSON object/)
    expect(await files(broken)).toEqual(['package.json'])
  })
})
