import { createReadStream, createWriteStream } from 'node:fs'
import { mkdir, rename } from 'node:fs/promises'
import { dirname, join, resolve, sep } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { assertTextOption, describe, invalidOption } from '../../foundation/options.ts'

export type ArchiveFormat = 'ndjson' | 'parquet'

/** Where archives are kept: a folder, or an object store such as S3. */
export interface ArchiveStore {
  /**
   * Stores a file, and resolves when it is there in full. The name has segments separated by `/`. A file of that name is replaced as a
   * whole: a reader finds the old one or the new one.
   */
  readonly write: (name: string, content: Readable) => Promise<void>
  /** The content of a file. Rejects if there is none of that name. */
  readonly read: (name: string) => Promise<Readable>
  /**
   * `ndjson`: JSON lines, compressed by gzip. `parquet` takes the packages `hyparquet-writer` and `hyparquet`.
   * @defaultValue `'ndjson'`
   */
  readonly format?: ArchiveFormat | undefined
}

/**
 * Keeps archives in a folder, which is created. The processes that drop partitions all need it, so on several machines it is a shared one.
 *
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export function archiveToFolder(
  path: string,
  { format = 'ndjson' }: { readonly format?: ArchiveFormat | undefined } = {},
): ArchiveStore {
  assertTextOption('path', path)
  if (format !== 'ndjson' && format !== 'parquet')
    throw invalidOption(`Expected \`format\` to be "ndjson" or "parquet", got ${describe(format)}`, 'format')
  const folder = resolve(path)
  const fileOf = (name: string): string => {
    const file = join(folder, name)
    if (!file.startsWith(folder + sep)) throw new Error('The name of the file leads out of the folder')
    return file
  }
  return {
    format,
    async write(name, content) {
      const file = fileOf(name)
      await mkdir(dirname(file), { recursive: true })
      // Renamed when it is complete and on the disk.
      await pipeline(content, createWriteStream(`${file}.part`, { flush: true }))
      await rename(`${file}.part`, file)
    },
    async read(name) {
      const stream = createReadStream(fileOf(name))
      return new Promise((opened, failed) => {
        stream.once('open', () => opened(stream)).once('error', failed)
      })
    },
  }
}
