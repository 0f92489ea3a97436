import { resolve } from 'node:path'
import type { KnownType } from '../../events/contracts/catalogue-description.ts'
import { defineCommand } from '../command/command.ts'
import { text } from '../command/flags.ts'
import { jsonText } from '../output/json-text.ts'
import { green, red, yellow } from '../output/styled.ts'

const marks = { added: green('added'), removed: red('removed'), changed: yellow('changed') }

export const catalogDiff = defineCommand({
  examples: [
    ['catalog diff', 'the events of the configuration against those that are recorded in the database'],
    ['catalog diff --against catalogue.json', 'against a file, without a database'],
  ],
  notes: ['Tells every difference, whatever it means: `catalog check` says which of them break something.'],
  flags: {
    against: text('<file>', 'A catalogue that `bossbus catalog export` wrote, in place of the database'),
  },
  async run({ flags, config, bus, database, output, cwd }) {
    const { against } = flags
    const given = await config()
    const [source, events] = [given.source(), await given.events()]
    const [{ describeCatalogue }, { diffCatalogues }] = await Promise.all([
      import('../../events/contracts/catalogue-description.ts'),
      import('../../events/compatibility/catalogue-diff.ts'),
    ])
    let known: readonly KnownType[]
    if (against === undefined) {
      const { readCatalogue } = await import('../../operations/stored-catalogue.ts')
      await bus()
      known = await readCatalogue(await database())
    } else {
      const { readCatalogueFile } = await import('../views/catalogue-file.ts')
      known = await readCatalogueFile(resolve(cwd, against), against)
    }
    const changes = diffCatalogues(source, await describeCatalogue(events), known)
    if (output.isJson || changes.length === 0) {
      output.list(changes, [], 'Nothing differs.')
      return 0
    }
    for (const { type, change, service, recordedVersion, version, differences } of changes) {
      const versions = [recordedVersion, version].filter((each) => each !== undefined)
      output.line(
        marks[change],
        `  ${type}  version ${[...new Set(versions)].join(' → ')}${service === source ? '' : `  (recorded by ${service})`}`,
      )
      for (const { path, before, after } of differences) {
        if (before !== undefined) output.line(red(`  - ${path}: ${jsonText(before)}`))
        if (after !== undefined) output.line(green(`  + ${path}: ${jsonText(after)}`))
      }
    }
    return 0
  },
})
