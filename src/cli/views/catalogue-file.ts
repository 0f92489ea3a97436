import { readFile } from 'node:fs/promises'
import { readCatalogueDocument } from '../../events/contracts/catalogue-document.ts'
import type { KnownType } from '../../events/contracts/catalogue-description.ts'
import { UsageError } from '../command/usage-error.ts'

/**
 * The types of a file that `bossbus catalog export` wrote.
 *
 * @param name - of the file, as it was given
 * @throws a {@link UsageError} if it cannot be read; a {@link ConfigurationError} `BUS_INVALID_OPTION` if it is no catalogue
 */
export async function readCatalogueFile(file: string, name: string): Promise<readonly KnownType[]> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw new UsageError(`${name} could not be read: ${(error as Error).message}`, { cause: error })
  })
  return readCatalogueDocument(parse(text, name), name)
}

function parse(text: string, name: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new UsageError(`${name} is no JSON`)
  }
}
