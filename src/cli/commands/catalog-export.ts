import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { TypeDescription } from '../../events/contracts/catalogue-description.ts'
import { defineCommand } from '../command/command.ts'
import { choice, text } from '../command/flags.ts'
import { counted } from '../output/cells.ts'

export const catalogExport = defineCommand({
  examples: [
    ['catalog export --out catalogue.json', 'a file for `catalog check --against`'],
    ['catalog export --format asyncapi', 'a document for readers of the events'],
  ],
  flags: {
    format: choice(['json-schema', 'asyncapi'], 'The format', 'json-schema'),
    out: text(
      '<file>',
      `Writes a file instead of standard output. Of the versions that a catalogue of this format
                            holds there already, those that are older than the code's are kept`,
    ),
    envelope: choice(['cloudevents', 'plain'], 'For asyncapi', 'cloudevents'),
    'api-version': text('<version>', 'For asyncapi: the version of the document (1.0.0)'),
  },
  async run({ flags, config, output, cwd }) {
    const { format, envelope, out } = flags
    const given = await config()
    const source = given.source()
    const [{ describeCatalogue }, { toAsyncApi }, { toCatalogueDocument }] = await Promise.all([
      import('../../events/contracts/catalogue-description.ts'),
      import('../../events/contracts/asyncapi.ts'),
      import('../../events/contracts/catalogue-document.ts'),
    ])
    const current = await describeCatalogue(
      await given.events(),
      format === 'asyncapi' ? 'draft-07' : 'draft-2020-12',
    )
    const file = out === undefined ? undefined : resolve(cwd, out)
    for (const { type, version } of current.filter(({ schemaOrigin }) => schemaOrigin === 'unknown'))
      output.note(
        `The schema of ${type} (version ${version}) is not known as JSON Schema: it is written as one that fits anything`,
      )
    const document =
      format === 'asyncapi'
        ? toAsyncApi(current, { source, envelope, apiVersion: flags['api-version'] ?? '1.0.0' })
        : toCatalogueDocument(source, current, await versionsIn(file))
    const written = JSON.stringify(document, undefined, 2)
    if (file === undefined) output.raw(written)
    else {
      await writeFile(file, `${written}\n`)
      output.note(`Wrote ${counted(current.length, 'type')} to ${out}`)
    }
    return 0
  },
})

/** The versions in a file that is about to be overwritten. */
async function versionsIn(file: string | undefined): Promise<readonly TypeDescription[]> {
  if (file === undefined || !existsSync(file)) return []
  const text = await readFile(file, 'utf8')
  if (text.trim() === '') return []
  const { readCatalogueDocument } = await import('../../events/contracts/catalogue-document.ts')
  return readCatalogueDocument(JSON.parse(text), file)
}
