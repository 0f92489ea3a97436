import { open, type FileHandle } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { assertObject, describe, invalidOption, refuseUnknownKeys } from '../../foundation/options.ts'
import { closedError } from '../sending/connected-transport.ts'
import { encodeAndSend } from '../sending/encode-all.ts'
import { createEncoder, type EnvelopeOptions } from '../sending/envelope.ts'
import { delivered, everyResult, type Transport } from '../sending/transport.ts'
import type { TransportUrl } from '../sending/transport-url.ts'

/** Options of {@link file}. */
export interface FileOptions extends EnvelopeOptions<'structured' | 'raw'> {
  /** Created if it is not there. Lines are added at its end. */
  readonly path: string
}

/** A line may be as long as the largest event. */
const maxBytes = 268_435_456

/**
 * Writes a line of JSON for each event to a file (NDJSON), and forces it to the disk before the event counts as delivered. A line that an
 * earlier crash has cut off is ended first, so it spoils no other one: readers skip lines that are no JSON, and know events that are there
 * twice by their id. One process may write a file at a time, unless its file system appends whole writes, as local ones do.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function file(options: FileOptions): Transport {
  assertObject('options like { path }', options)
  refuseUnknownKeys(options, ['path', 'envelope', 'claimCheck'], 'file')
  const { path } = options
  if (typeof path !== 'string' || path === '' || path.includes('\0'))
    throw invalidOption(`Expected \`path\` to be the path of a file, got ${describe(path)}`, 'path')
  const encode = createEncoder(options, { protocol: undefined, maxBytes })
  let opening: Promise<FileHandle> | undefined
  let writing: Promise<unknown> = Promise.resolve()
  let isClosed = false

  async function opened(): Promise<FileHandle> {
    if (isClosed) throw closedError('file')
    const attempt = (opening ??= openAtLine(path))
    attempt.catch(() => {
      if (opening === attempt) opening = undefined
    })
    return attempt
  }

  /** Writes of this process never mix: each begins after the one before. */
  async function append(text: Buffer): Promise<void> {
    const before = writing
    const write = (async () => {
      await before.catch(() => {})
      const handle = await opened()
      try {
        await handle.appendFile(text)
        await handle.datasync()
      } catch (error) {
        // Part of it may be there: the next write begins on a line of its own.
        opening = undefined
        await handle.close().catch(() => {})
        throw error
      }
    })()
    writing = write
    return write
  }

  return {
    name: 'file',
    order: 'key',
    maxEvents: 1000,
    publish: async (events) =>
      encodeAndSend(events, encode, async (messages) => {
        await append(Buffer.concat(messages.flatMap(({ body }) => [body, lineEnd])))
        return everyResult(messages.length, delivered)
      }),
    async check() {
      await opened()
    },
    async close() {
      isClosed = true
      await writing.catch(() => {})
      const handle = await opening?.catch(() => {})
      opening = undefined
      await handle?.close()
    },
  }
}

const lineEnd = Buffer.from('\n')

/** Opens a file for appending, at the beginning of a line. */
async function openAtLine(path: string): Promise<FileHandle> {
  const handle = await open(path, 'a+')
  try {
    const { size } = await handle.stat()
    if (size > 0) {
      const { buffer } = await handle.read(Buffer.alloc(1), 0, 1, size - 1)
      if (buffer[0] !== lineEnd[0]) await handle.appendFile(lineEnd)
    }
    return handle
  } catch (error) {
    await handle.close().catch(() => {})
    throw error
  }
}

/** `file:///var/log/events.ndjson?envelope=raw`. */
export function fileFromUrl(given: TransportUrl): Transport {
  const envelope = given.choice('envelope', ['structured', 'raw'])
  return file({ path: pathOf(given), envelope })
}

function pathOf(given: TransportUrl): string {
  if (given.path.includes('\0')) throw given.refuse('the path is not valid')
  try {
    return fileURLToPath(Object.assign(new URL(given.url), { search: '', hash: '' }))
  } catch (error) {
    throw given.refuse(error instanceof Error ? error.message : 'the path is not valid')
  }
}
