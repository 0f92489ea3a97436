import { HttpError } from '../../foundation/errors.ts'
import { withTimeout } from '../../foundation/with-timeout.ts'

/**
 * Reads the body of a request.
 *
 * @throws an `HttpError` if it is too large, or takes too long
 */
export async function readBody(request: Request, maxBytes: number, timeoutMs: number): Promise<Buffer> {
  const length = Number(request.headers.get('content-length') ?? 0)
  if (length > maxBytes) throw tooLarge(maxBytes)
  if (request.bodyUsed)
    throw new HttpError(500, 'BUS_HTTP_ERROR', 'Expected a request whose body was not read yet')
  const reader = request.body?.getReader() as ReadableStreamDefaultReader<Uint8Array> | undefined
  if (reader === undefined) return Buffer.alloc(0)
  const chunks: Uint8Array[] = []
  let bytes = 0
  async function readAll(stream: ReadableStreamDefaultReader<Uint8Array>): Promise<Buffer> {
    for (;;) {
      const { done, value } = await stream.read()
      if (done) return Buffer.concat(chunks)
      bytes += value.byteLength
      if (bytes > maxBytes) throw tooLarge(maxBytes)
      chunks.push(value)
    }
  }
  try {
    return await withTimeout(readAll(reader), timeoutMs, (): never => {
      throw new HttpError(408, 'BUS_HTTP_BAD_REQUEST', 'Expected the body to arrive sooner')
    })
  } catch (error) {
    // What is still under way is not waited for.
    void reader.cancel().catch(() => {})
    throw error
  }
}

const tooLarge = (maxBytes: number): HttpError =>
  new HttpError(413, 'BUS_HTTP_BODY_TOO_LARGE', `Expected a body of at most ${maxBytes} bytes`)
