import { readFile } from 'node:fs/promises'
import tls from 'node:tls'
import type pg from 'pg'

type Ssl = NonNullable<pg.PoolConfig['ssl']>

/** Files that are read for each new connection: they may be replaced, or be missing for a moment. */
export interface TlsFiles {
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
}

/** Parameters of a URL, and the TLS option that is read from the file they name. */
const fileParameters = { sslrootcert: 'ca', sslcert: 'cert', sslkey: 'key' } as const

export const tlsParameters = [
  'ssl',
  'sslmode',
  'sslnegotiation',
  'uselibpqcompat',
  ...Object.keys(fileParameters),
]

/** The certificates of the operating system, instead of a file. */
const systemCertificates = 'system'

/** The meaning of the modes without `uselibpqcompat=true`: as in node-postgres 8, all modes that encrypt also verify. */
const verifyingModes = ['prefer', 'require', 'verify-ca', 'verify-full']

/**
 * The TLS options for the parameters of a URL; undefined if there are none.
 *
 * @param refuse - throws with a reason
 */
export function tlsOf(
  parameters: ReadonlyMap<string, string>,
  refuse: (reason: string) => never,
): { readonly ssl: Ssl | undefined; readonly files: TlsFiles } {
  const files = Object.fromEntries(
    Object.entries(fileParameters).flatMap(([name, part]) => {
      const path = parameters.get(name)
      return path === undefined || path === '' ? [] : [[part, path]]
    }),
  ) as TlsFiles
  const mode = parameters.get('sslmode')
  const ssl =
    mode === undefined && Object.keys(files).length === 0
      ? switchOf(parameters, refuse)
      : sslOf(mode ?? 'verify-full', parameters.get('uselibpqcompat') === 'true', files, refuse)
  return { ssl, files: ssl === false ? {} : files }
}

function switchOf(
  parameters: ReadonlyMap<string, string>,
  refuse: (reason: string) => never,
): Ssl | undefined {
  const direct = parameters.get('sslnegotiation') === 'direct'
  switch (parameters.get('ssl')) {
    case undefined:
      return direct ? true : undefined
    case 'true':
    case '1':
      return true
    case 'false':
    case '0':
      return direct ? refuse('`sslnegotiation=direct` needs TLS') : false
    case 'no-verify':
      return { rejectUnauthorized: false }
    default:
      return refuse('`ssl` is not one of true, 1, false, 0, no-verify')
  }
}

function sslOf(mode: string, libpq: boolean, files: TlsFiles, refuse: (reason: string) => never): Ssl {
  if (files.ca === systemCertificates && mode !== 'verify-full')
    return refuse('`sslrootcert=system` needs `sslmode=verify-full`')
  if (mode === 'disable') return false
  if (mode === 'no-verify') return { rejectUnauthorized: false }
  if (!verifyingModes.includes(mode))
    return refuse(`\`sslmode\` is not one of disable, ${verifyingModes.join(', ')}, no-verify`)
  if (!libpq || mode === 'verify-full') return {}
  if (mode === 'prefer' || (mode === 'require' && files.ca === undefined))
    return { rejectUnauthorized: false }
  if (files.ca === undefined) return refuse('`sslmode=verify-ca` needs `sslrootcert`')
  return { checkServerIdentity: () => undefined }
}

/** Adds the contents of the files to the configuration. @throws the errors of reading them */
export async function withTlsFiles(config: pg.PoolConfig, files: TlsFiles): Promise<pg.PoolConfig> {
  const parts = Object.entries(files) as [keyof TlsFiles, string][]
  if (parts.length === 0) return config
  const ssl: tls.ConnectionOptions = typeof config.ssl === 'object' ? { ...config.ssl } : {}
  for (const [part, path] of parts) {
    ssl[part] =
      part === 'ca' && path === systemCertificates
        ? // An image without system certificates falls back to those of Node.
          [...new Set([...tls.getCACertificates('default'), ...tls.getCACertificates('system')])]
        : await readFile(path, 'utf8')
  }
  return { ...config, ssl }
}
