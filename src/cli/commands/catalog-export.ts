import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { toAsyncApi } from '../../events/contracts/asyncapi.ts'
import { readCatalogueDocument, toCatalogueDocument } from '../../events/contracts/catalogue-document.ts'
import { describeCatalogue, type TypeDescription } from '../../events/contracts/catalogue-description.ts'
import { choiceFlag, textFlag, type Command } from '../command/command.ts'

export const catalogExport: Command = {
  name: 'catalog export',
  summary: 'Writes the catalogue as JSON Schema or AsyncAPI 3.0',
  help: `  --format <format>   json-schema (default), or asyncapi
  --out <file>        writes a file instead of standard output. Of the versions that a catalogue of this format holds there
                      already, those that are older than the code's are kept
  --envelope <kind>   asyncapi: cloudevents (default), or plain
  --api-version <v>   asyncapi: the version of the document, 1.0.0 unless given`,
  options: {
    format: { type: 'string' },
    out: { type: 'string' },
    envelope: { type: 'string' },
    'api-version': { type: 'string' },
  },
  async run({ flags, config, print, note, cwd }) {
    const format = choiceFlag(flags, 'format', ['json-schema', 'asyncapi']) ?? 'json-schema'
    const envelope = choiceFlag(flags, 'envelope', ['cloudevents', 'plain']) ?? 'cloudevents'
    const given = await config()
    const source = given.source()
    const current = await describeCatalogue(
      given.events(),
      format === 'asyncapi' ? 'draft-07' : 'draft-2020-12',
    )
    const out = textFlag(flags, 'out')
    const file = out === undefined ? undefined : resolve(cwd, out)
    for (const { type, version } of current.filter(({ schemaOrigin }) => schemaOrigin === 'unknown'))
      note(
        `The schema of ${type} (version ${version}) is not known as JSON Schema: it is written as one that fits anything`,
      )
    const document =
      format === 'asyncapi'
        ? toAsyncApi(current, { source, envelope, apiVersion: textFlag(flags, 'api-version') ?? '1.0.0' })
        : toCatalogueDocument(source, current, await versionsIn(file))
    const text = JSON.stringify(document, undefined, 2)
    if (file === undefined) print(text)
    else {
      await writeFile(file, `${text}\n`)
      note(`Wrote ${current.length} ${current.length === 1 ? 'type' : 'types'} to ${out}`)
    }
    return 0
  },
}

/** The versions in a file that is about to be overwritten. */
async function versionsIn(file: string | undefined): Promise<readonly TypeDescription[]> {
  if (file === undefined || !existsSync(file)) return []
  const text = await readFile(file, 'utf8')
  return text.trim() === '' ? [] : readCatalogueDocument(JSON.parse(text), file)
}
