import { Readable, type Duplex } from 'node:stream'
import { createGunzip, createGzip } from 'node:zlib'
import type { ArchiveFormat } from './archive-store.ts'
import { decodeParquet, encodeParquet } from './parquet.ts'

export const extensions: Readonly<Record<ArchiveFormat, string>> = { ndjson: 'ndjson.gz', parquet: 'parquet' }

/** A file of these lines, each a row as JSON. */
export function encodeLines(
  format: ArchiveFormat,
  columns: readonly string[],
  lines: AsyncIterable<string>,
): Readable {
  if (format === 'parquet') return Readable.from(encodeParquet(columns, lines))
  return joined(Readable.from(chunksOf(lines)), createGzip())
}

/** The lines of a file, as they were written. */
export async function* decodeLines(
  format: ArchiveFormat,
  columns: readonly string[],
  content: Readable,
): AsyncGenerator<string> {
  if (format === 'parquet') yield* decodeParquet(columns, content)
  else yield* splitLines(joined(content, createGunzip()))
}

/** Text of some 64 KB, so that not each line is a step of its own. */
async function* chunksOf(lines: AsyncIterable<string>): AsyncGenerator<string> {
  let text = ''
  for await (const line of lines) {
    text += `${line}\n`
    if (text.length < 65_536) continue
    yield text
    text = ''
  }
  if (text !== '') yield text
}

async function* splitLines(content: AsyncIterable<unknown>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of content) {
    const parts = (rest + decoder.decode(chunk as Buffer, { stream: true })).split('\n')
    rest = parts.pop() ?? ''
    yield* parts
  }
  if (rest !== '') throw new Error('The file ends within a line')
}

/** Reads one through the other; an error of the first is one of the result. */
function joined(from: Readable, through: Duplex): Readable {
  from.on('error', (error) => through.destroy(error))
  through.on('close', () => from.destroy())
  return from.pipe(through)
}
