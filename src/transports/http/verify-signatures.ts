import { createHash, createHmac, createPublicKey, timingSafeEqual, verify, type KeyObject } from 'node:crypto'
import { HttpError } from '../../foundation/errors.ts'
import {
  assertObject,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import { signed } from './signature.ts'
import type { IncomingRequest, VerifyRequest } from './verify-request.ts'

/** Keys, of which each request is signed with one. */
export interface SecretOptions {
  /** One, or up to 10 while a sender changes from one to the next. */
  readonly secrets: string | readonly string[]
}

/** Keys, and how old a request may be. */
export interface SignedOptions extends SecretOptions {
  /** How far the time of a request may be from now, 1 to 86,400 seconds. @defaultValue `300` */
  readonly toleranceSeconds?: number | undefined
}

/** Signatures of a request that are looked at. */
const maxSignatures = 20

/** SPKI of an Ed25519 key, up to the key (RFC 8410). */
const ed25519Prefix = Buffer.from('302a300506032b6570032100', 'hex')

type Check = (content: Uint8Array, signature: Buffer) => boolean

/**
 * Verifies webhooks by the specification of Standard Webhooks: HMAC-SHA256 (`v1`, `whsec_…`) and Ed25519 (`v1a`, `whpk_…`, the public key).
 * The id of a message is `webhook-id`; the headers of Svix, `svix-…`, are taken too.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`, without a key
 */
export function standardWebhooks(options: SignedOptions): VerifyRequest {
  assertObject('options like { secrets }', options)
  refuseUnknownKeys(options, ['secrets', 'toleranceSeconds'], 'standardWebhooks')
  const checks = secretsOption(options.secrets).map(standardCheck)
  const toleranceSeconds = toleranceOption(options.toleranceSeconds)
  return ({ headers, body }) => {
    const prefix = headers['webhook-signature'] === undefined ? 'svix' : 'webhook'
    const id = headers[`${prefix}-id`]
    const timestamp = headers[`${prefix}-timestamp`]
    const signatures = headers[`${prefix}-signature`]
    // A point in the id would make it unclear what was signed.
    if (id === undefined || timestamp === undefined || signatures === undefined || /^$|[.\s]/.test(id))
      throw refused('the headers webhook-id, webhook-timestamp and webhook-signature')
    const at = timeOf(timestamp, toleranceSeconds)
    const content = signed(id, at, body)
    const isGenuine = signatures
      .split(' ', maxSignatures)
      .some((text) =>
        checks.some(
          ([version, check]) =>
            text.startsWith(`${version},`) &&
            check(content, Buffer.from(text.slice(version.length + 1), 'base64')),
        ),
      )
    return isGenuine ? [{ id }] : undefined
  }
}

function standardCheck(secret: string): readonly [version: 'v1' | 'v1a', check: Check] {
  const [, kind, base64 = ''] = /^(whsec|whpk)_([A-Za-z0-9+/]+={0,2})$/.exec(secret) ?? []
  const bytes = Buffer.from(base64, 'base64')
  if (kind === 'whsec' && bytes.length >= 16 && bytes.length <= 256) return ['v1', hmacCheck(bytes)]
  if (kind === 'whpk' && bytes.length === 32) {
    const key = createPublicKey({ key: Buffer.concat([ed25519Prefix, bytes]), format: 'der', type: 'spki' })
    return ['v1a', ed25519Check(key)]
  }
  throw invalidOption(
    `Expected \`secrets\` to be \`whsec_\` and 16 to 256 bytes in base64, or \`whpk_\` and a public Ed25519 key in base64${secret.startsWith('whsk_') ? ': this is a private key, which only the sender has' : ''}`,
    'secrets',
  )
}

/**
 * Verifies webhooks of Stripe by their header `stripe-signature`. The id of a message is that of the event, `evt_…`.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`, without a key
 */
export function stripe(options: SignedOptions): VerifyRequest {
  assertObject('options like { secrets }', options)
  refuseUnknownKeys(options, ['secrets', 'toleranceSeconds'], 'stripe')
  const checks = textKeys(options.secrets)
  const toleranceSeconds = toleranceOption(options.toleranceSeconds)
  return (request) => {
    const parts = (request.headers['stripe-signature'] ?? '')
      .split(',', maxSignatures)
      .map((part) => part.trim())
    const timestamp = parts.find((part) => part.startsWith('t='))?.slice(2)
    const signatures = parts.filter((part) => part.startsWith('v1=')).map((part) => hexOf(part.slice(3)))
    if (timestamp === undefined || signatures.length === 0) throw refused('the header stripe-signature')
    timeOf(timestamp, toleranceSeconds)
    const content = Buffer.concat([Buffer.from(`${timestamp}.`), request.body])
    if (!signatures.some((signature) => checks.some((check) => check(content, signature)))) return undefined
    return [{ id: idInBody(request) }]
  }
}

/**
 * Verifies webhooks of GitHub by their header `x-hub-signature-256`. The id of a message is `x-github-delivery`, which the signature does not
 * cover, as it covers no time: whoever has got hold of a request can send its body again as another message.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`, without a key
 */
export function github(options: SecretOptions): VerifyRequest {
  assertObject('options like { secrets }', options)
  refuseUnknownKeys(options, ['secrets'], 'github')
  const checks = textKeys(options.secrets)
  return ({ headers, body }) => {
    const signature = /^sha256=([0-9a-f]{64})$/.exec(headers['x-hub-signature-256'] ?? '')?.[1]
    if (signature === undefined) throw refused('the header x-hub-signature-256')
    if (!checks.some((check) => check(body, hexOf(signature)))) return undefined
    return [{ id: headers['x-github-delivery'] }]
  }
}

/**
 * Takes requests with `authorization: Bearer …` and one of some tokens. The id of a message is the header `idempotency-key`, if it has one:
 * combine it with {@link cloudEvents}, which have ids of their own.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`, without a token
 */
export function bearerToken(options: SecretOptions): VerifyRequest {
  assertObject('options like { secrets }', options)
  refuseUnknownKeys(options, ['secrets'], 'bearerToken')
  const known = secretsOption(options.secrets).map((secret) => digestOf(tokenOf(secret)))
  return ({ headers }) => {
    const given = /^bearer +(\S{1,4096})$/i.exec(headers['authorization'] ?? '')?.[1]
    if (given === undefined) throw refused('the header authorization with a bearer token')
    const digest = digestOf(given)
    return known.filter((each) => timingSafeEqual(each, digest)).length > 0
      ? [{ id: headers['idempotency-key'] }]
      : undefined
  }
}

function hmacCheck(key: Uint8Array): Check {
  return (content, signature) => {
    const expected = createHmac('sha256', key).update(content).digest()
    return signature.length === expected.length && timingSafeEqual(signature, expected)
  }
}

function ed25519Check(key: KeyObject): Check {
  return (content, signature) => signature.length === 64 && verify(null, content, key, signature)
}

const hexOf = (text: string): Buffer => Buffer.from(/^[0-9a-f]{64}$/i.test(text) ? text : '', 'hex')

const digestOf = (text: string): Buffer => createHash('sha256').update(text).digest()

const refused = (what: string): HttpError => new HttpError(401, 'BUS_HTTP_UNAUTHORIZED', `Expected ${what}`)

/** @throws an `HttpError` if it is no time, or too far from now */
function timeOf(timestamp: string, toleranceSeconds: number): number {
  const seconds = /^[1-9]\d{0,11}$/.test(timestamp) ? Number(timestamp) : Number.NaN
  if (Math.abs(Date.now() / 1000 - seconds) <= toleranceSeconds) return seconds
  throw refused(`a time within ${toleranceSeconds} s of now`)
}

/** The id in a body of JSON; undefined if there is none. */
function idInBody({ body }: IncomingRequest): string | undefined {
  try {
    const { id } = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body)) as { id?: unknown }
    return typeof id === 'string' ? id : undefined
  } catch {
    return undefined
  }
}

function textKeys(given: unknown): readonly Check[] {
  return secretsOption(given).map((secret) => hmacCheck(Buffer.from(requireLength(secret))))
}

function requireLength(secret: string): string {
  if (secret.length >= 16) return secret
  throw invalidOption('Expected each of `secrets` to have at least 16 characters', 'secrets')
}

function tokenOf(secret: string): string {
  if (/^\S+$/.test(secret)) return requireLength(secret)
  throw invalidOption('Expected each of `secrets` to be a token without spaces', 'secrets')
}

function secretsOption(given: unknown): readonly string[] {
  const secrets: readonly unknown[] = Array.isArray(given) ? (given as readonly unknown[]) : [given]
  if (
    secrets.length >= 1 &&
    secrets.length <= 10 &&
    secrets.every((secret): secret is string => typeof secret === 'string' && secret !== '')
  )
    return secrets
  throw invalidOption(
    `Expected \`secrets\` to be a text, or a list of 1 to 10, got ${Array.isArray(given) ? `a list of ${secrets.length}` : describe(typeof given)}`,
    'secrets',
  )
}

const toleranceOption = (given: unknown): number =>
  integerOption('toleranceSeconds', given, { min: 1, max: 86_400, default: 300 })
