import { createHmac, createPrivateKey, sign, type KeyObject } from 'node:crypto'
import { invalidOption } from '../../foundation/options.ts'

/** Signs webhooks with a key, by the specification of Standard Webhooks. */
export type SignWebhook = (id: string, timestamp: number, body: Uint8Array) => string

/** PKCS #8 of an Ed25519 key, up to its seed (RFC 8410). */
const ed25519Prefix = Buffer.from('302e020100300506032b657004220420', 'hex')

/**
 * Reads a key: `whsec_…` (24 to 64 bytes in base64, HMAC-SHA256, signatures `v1`) or `whsk_…` (an Ed25519 key of 32 or 64 bytes,
 * signatures `v1a`).
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`, without the key
 */
export function webhookSigner(secret: unknown): SignWebhook {
  const [, kind, base64] =
    (typeof secret === 'string' && /^(whsec|whsk)_([A-Za-z0-9+/]+={0,2})$/.exec(secret)) || []
  const bytes = Buffer.from(base64 ?? '', 'base64')
  if (kind === 'whsec' && bytes.length >= 24 && bytes.length <= 64) {
    return (id, timestamp, body) => `v1,${hmac(bytes, id, timestamp, body)}`
  }
  if (kind === 'whsk' && (bytes.length === 32 || bytes.length === 64)) {
    const key = ed25519(bytes.subarray(0, 32))
    return (id, timestamp, body) => `v1a,${sign(null, signed(id, timestamp, body), key).toString('base64')}`
  }
  throw invalidOption(
    'Expected a secret of a webhook: `whsec_` and 24 to 64 bytes in base64, or `whsk_` and an Ed25519 key in base64',
    'secrets',
  )
}

/** What is signed. */
export function signed(id: string, timestamp: number, body: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body])
}

function hmac(key: Uint8Array, id: string, timestamp: number, body: Uint8Array): string {
  return createHmac('sha256', key)
    .update(signed(id, timestamp, body))
    .digest('base64')
}

function ed25519(seed: Uint8Array): KeyObject {
  return createPrivateKey({ key: Buffer.concat([ed25519Prefix, seed]), format: 'der', type: 'pkcs8' })
}
