/** A request whose body has been read. */
export interface IncomingRequest {
  /** Such as `/hooks/stripe`. */
  readonly path: string
  /** Names in lower case. Several values of a name are joined by `, `. */
  readonly headers: Readonly<Record<string, string>>
  /** As it came. */
  readonly body: Uint8Array
}

/** A message of a request that is genuine. What is left out is that of the request. */
export interface VerifiedMessage {
  /** The id that the sender gives it, the same when it is sent again. */
  readonly id: string | undefined
  readonly body?: Uint8Array | undefined
  readonly contentType?: string | undefined
  /** Whether headers hold the attributes of a CloudEvent, which may be read. Leave it out if the sender's signature does not cover them. */
  readonly protocol?: 'http' | undefined
}

/**
 * Says whether a request is genuine, and which messages it holds: mostly one. Undefined: it is not, and is answered with 401. An error that
 * has a `statusCode` from 400 to 499 is answered with it, any other one with 500. Nothing is stored then.
 */
export type VerifyRequest = (
  request: IncomingRequest,
) => readonly VerifiedMessage[] | undefined | Promise<readonly VerifiedMessage[] | undefined>
