import { execFile } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { busErrorCodes } from '../../src/index.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

interface Page {
  readonly file: string
  readonly text: string
}

async function readPage(file: string): Promise<Page> {
  return { file, text: await readFile(join(root, file), 'utf8') }
}

const inDocs = await readdir(join(root, 'docs'), { recursive: true })
const pages = await Promise.all(
  ['README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md']
    .concat(
      inDocs.filter((name) => name.endsWith('.md') || name === 'llms.txt').map((name) => `docs/${name}`),
    )
    .map(readPage),
)
const guide = pages.filter(({ file }) => /^docs\/guide\/(?!README)/.test(file))

/** The pages that the guide's index numbers: what a service uses of the bus. The others are about frameworks. */
const chapters = guide
  .map(({ file }) => file)
  .map((file) => file.replace('docs/guide/', ''))
  .filter((name) => !/README|express|fastify|hono|lambda|nestjs|nextjs/.test(name))

interface Link {
  readonly from: string
  readonly file: string
  readonly anchor: string
}

/** The links of a page to other files of the repository, and into itself. */
function linksOf({ file, text }: Page): Link[] {
  const prose = text.replaceAll(/```[^]*?```/g, '')
  return [...prose.matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target = '']) => target)
    .filter((target) => !/^[a-z]+:/.test(target))
    .map((target) => {
      const [path = '', anchor = ''] = target.split('#')
      return { from: file, file: path === '' ? file : normalize(join(dirname(file), path)), anchor }
    })
}

const links = pages.flatMap(linksOf)

/** As GitHub and npm make an anchor of a heading. */
function anchorsOf(text: string): string[] {
  return [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}_\- ]/gu, '')
      .replaceAll(' ', '-'),
  )
}

describe('links', () => {
  test('each leads to a file that there is, and to a heading of it', async () => {
    expect(links.length).toBeGreaterThan(150)
    const tracked = await listTracked()
    const dead = links.filter(({ file, anchor }) => {
      if (!tracked.some((each) => each === file || each.startsWith(`${file.replace(/\/$/, '')}/`)))
        return true
      const text = pages.find((page) => page.file === file)?.text ?? ''
      return anchor !== '' && !anchorsOf(text).includes(anchor)
    })
    expect(dead).toEqual([])
  })

  test('a page of the package leads only to others of it', async () => {
    const shipped = await listPacked()
    expect(shipped).toContain('docs/guide/publishing.md')
    expect(shipped).not.toContain('docs/design.md')
    const isThere = ({ file }: Link): boolean =>
      shipped.some((each) => each === file || each.startsWith(`${file.replace(/\/$/, '')}/`))
    const ofShipped = links.filter(({ from }) => shipped.includes(from))
    expect(ofShipped.length).toBeGreaterThan(150)
    expect(ofShipped.filter((link) => !isThere(link))).toEqual([])
    // Those of other pages are found: this is how one of the package would be.
    expect(
      links.filter(({ from }) => from === 'docs/design.md').filter((link) => !isThere(link)),
    ).not.toEqual([])
  })
})

async function listTracked(): Promise<string[]> {
  const names = await readdir(root, { recursive: false, withFileTypes: true })
  const folders = names.filter(
    (entry) => entry.isDirectory() && !/^(?:node_modules|\.git|dist)$/.test(entry.name),
  )
  const nested = await Promise.all(
    folders.map(async ({ name }) =>
      (await readdir(join(root, name), { recursive: true })).map((file) => `${name}/${file}`),
    ),
  )
  return [...names.map(({ name }) => name), ...nested.flat()]
}

/** What `npm pack` takes of the pages. It does not build. */
async function listPacked(): Promise<string[]> {
  const npm = ['pack', '--dry-run', '--json', '--ignore-scripts']
  const { stdout } = await promisify(execFile)('npm', npm, { cwd: root })
  const [packed] = JSON.parse(stdout) as { files: { path: string }[] }[]
  return packed?.files.map(({ path }) => path) ?? []
}

test('pages name only codes of errors that there are', () => {
  const named = pages.flatMap(({ file, text }) =>
    [...text.matchAll(/\bBUS_[A-Z_]+[A-Z]\b/g)].map(([code]) => ({ file, code })),
  )
  expect(named.length).toBeGreaterThan(100)
  expect(named.filter(({ code }) => !(busErrorCodes as readonly string[]).includes(code))).toEqual([])
})

/** What these are about has options of several kinds, each in its section. */
const withoutOptions = ['processes.md', 'testing.md']

describe('the guide', () => {
  test.each(chapters)('%s has an example, options, and what can go wrong', async (name) => {
    const { text } = await readPage(`docs/guide/${name}`)
    const headings = [...text.matchAll(/^## (.*)$/gm)].map(([, heading]) => heading)
    expect(headings.at(-1)).toBe('What can go wrong')
    expect(text).toMatch(/```ts\n/)
    const tables = withoutOptions.includes(name) ? ['What can go wrong'] : ['Options', 'What can go wrong']
    for (const heading of tables)
      expect(text.split(`## ${heading}\n`)[1]).toMatch(/^[^]{0,400}?\n?\|.*\|\n\|---/)
    expect(text.split('## What can go wrong')[1]).toMatch(/`BUS_[A-Z_]+`/)
  })

  test('its index and llms.txt list each page', () => {
    const index = linksOf(pages.find(({ file }) => file === 'docs/guide/README.md') ?? { file: '', text: '' })
    expect(guide.map(({ file }) => file).filter((file) => !index.some((link) => link.file === file))).toEqual(
      [],
    )
    const forModels = linksOf(pages.find(({ file }) => file === 'docs/llms.txt') ?? { file: '', text: '' })
    const listed = pages
      .map(({ file }) => file)
      .filter((file) => /^docs\/(?!adr|llms|design|benchmarks)/.test(file))
      .filter((file) => !forModels.some((link) => link.file === file))
    expect(listed).toEqual([])
  })
})

test('the README has at most 130 lines', async () => {
  const { text } = await readPage('README.md')
  expect(text.split('\n').length - 1).toBeLessThanOrEqual(130)
})
