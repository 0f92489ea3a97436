import { describe, expect, test } from 'vitest'
import { createBus } from '../../src/index.ts'
import { parseDatabaseUrl } from '../../src/database/configuration/database-url.ts'
import { toTarget } from '../../src/database/configuration/pool-config.ts'
import { paymentEvents } from '../support/bus.ts'

const parse = (url: string): unknown => {
  const { config, hosts, files } = parseDatabaseUrl(url)
  return { ...config, hosts, ...(Object.keys(files).length > 0 ? { files } : {}) }
}

const at = (host?: string, port?: number): unknown => [{ host, port }]

describe('a database URL is taken apart', () => {
  test.each<[string, Record<string, unknown>]>([
    [
      'postgres://ada:secret@db.example:6432/shop',
      { user: 'ada', password: 'secret', database: 'shop', hosts: at('db.example', 6432) },
    ],
    ['postgresql://ada@db/shop', { user: 'ada', database: 'shop', hosts: at('db') }],
    ['POSTGRES://db/shop', { database: 'shop', hosts: at('db') }],
    // What is left out is node-postgres's to find: PGHOST, PGUSER, PGDATABASE, or its defaults.
    ['postgres://', { hosts: at() }],
    ['postgres:///shop', { database: 'shop', hosts: at() }],
    ['postgres://ada@/shop', { user: 'ada', database: 'shop', hosts: at() }],
    ['postgres://db', { hosts: at('db') }],
    ['postgres://db/', { hosts: at('db') }],
    ['postgres://:secret@db:/shop', { password: 'secret', database: 'shop', hosts: at('db') }],
    [
      'postgres://ada:p%23a%2Fs%3Fs%40w%25o@db/shop',
      { user: 'ada', password: 'p#a/s?s@w%o', database: 'shop', hosts: at('db') },
    ],
    [
      'postgres://a%40b:x@db/sh%2Fop%20one',
      { user: 'a@b', password: 'x', database: 'sh/op one', hosts: at('db') },
    ],
    // These cannot be taken for anything else.
    [
      'postgres://ada:p@ss:w rd@db/shop',
      { user: 'ada', password: 'p@ss:w rd', database: 'shop', hosts: at('db') },
    ],
    ['  postgres://ada:x@db/shop\n', { user: 'ada', password: 'x', database: 'shop', hosts: at('db') }],
    ['postgres://[::1]:6432/shop', { database: 'shop', hosts: at('::1', 6432) }],
    ['postgres://[fe80::1%25eth0]/shop', { database: 'shop', hosts: at('fe80::1%eth0') }],
    ['postgres://%2Fvar%2Frun%2Fpostgresql/shop', { database: 'shop', hosts: at('/var/run/postgresql') }],
    ['postgres://%2Ftmp:6432/shop', { database: 'shop', hosts: at('/tmp', 6432) }],
    [
      'postgres:///shop?host=/var/run/postgresql&port=6432',
      { database: 'shop', hosts: at('/var/run/postgresql', 6432) },
    ],
    [
      'postgres://db?dbname=shop&user=me@corp&password=x',
      { database: 'shop', user: 'me@corp', password: 'x', hosts: at('db') },
    ],
    [
      'postgres://db/shop?application_name=shop&options=-c%20geqo%3Doff',
      { database: 'shop', application_name: 'shop', options: '-c geqo=off', hosts: at('db') },
    ],
    [
      'postgres://db/shop?connect_timeout=3&statement_timeout=5000',
      { database: 'shop', connectionTimeoutMillis: 3000, statement_timeout: 5000, hosts: at('db') },
    ],
    [
      'postgres://one:5432,two/shop?target_session_attrs=read-write',
      {
        database: 'shop',
        hosts: [
          { host: 'one', port: 5432 },
          { host: 'two', port: undefined },
        ],
      },
    ],
    [
      'postgres:///shop?host=one,two&port=1,2',
      {
        database: 'shop',
        hosts: [
          { host: 'one', port: 1 },
          { host: 'two', port: 2 },
        ],
      },
    ],
    ['postgres://db/shop?sslmode=disable', { database: 'shop', ssl: false, hosts: at('db') }],
    ['postgres://db/shop?sslmode=require', { database: 'shop', ssl: {}, hosts: at('db') }],
    [
      'postgres://db/shop?sslmode=require&channel_binding=require',
      { database: 'shop', ssl: {}, enableChannelBinding: true, hosts: at('db') },
    ],
    [
      'postgres://db/shop?sslmode=no-verify',
      { database: 'shop', ssl: { rejectUnauthorized: false }, hosts: at('db') },
    ],
    [
      'postgres://db/shop?sslmode=require&uselibpqcompat=true',
      { database: 'shop', ssl: { rejectUnauthorized: false }, hosts: at('db') },
    ],
    [
      'postgres://db/shop?sslmode=verify-full&sslrootcert=/ca.pem',
      { database: 'shop', ssl: {}, files: { ca: '/ca.pem' }, hosts: at('db') },
    ],
    [
      'postgres://db/shop?sslrootcert=system',
      { database: 'shop', ssl: {}, files: { ca: 'system' }, hosts: at('db') },
    ],
    ['postgres://db/shop?ssl=true', { database: 'shop', ssl: true, hosts: at('db') }],
    ['postgres://db/shop?ssl=0', { database: 'shop', ssl: false, hosts: at('db') }],
    [
      'postgres://db/shop?sslnegotiation=direct',
      { database: 'shop', ssl: true, sslnegotiation: 'direct', hosts: at('db') },
    ],
  ])('%s', (url, expected) => {
    expect(parse(url)).toEqual(expected)
    const bus = createBus({ database: url, events: paymentEvents, source: 's' })
    expect(bus.state).toBe('created')
  })
})

/** In the tests below everything that must not be shown has this in it. */
const secret = 'hunter2'

describe('what cannot be made out is refused by createBus, without quoting it', () => {
  const encode = /percent-encoded: write `#` as %23/
  test.each<[string, RegExp]>([
    [`postgres://ada:${secret}#word@db/shop`, encode],
    // Taken literally this one is host ada, port 12.
    [`postgres://ada:12#${secret}@db/shop`, encode],
    [`postgres://ada:${secret}/word@db/shop`, encode],
    [`postgres://ada:12/${secret}@db/shop`, encode],
    [`postgres://a@b:${secret}/word@db/shop`, encode],
    [`postgres://ada:${secret}?word@db/shop`, encode],
    [`postgres://ada:12?${secret}@db/shop`, encode],
    [`postgres://ada:${secret}%@db/shop`, encode],
    [`postgres://ada:${secret}%zz@db/shop`, encode],
    [`postgres://ada:${secret}%ff@db/shop`, /that are not UTF-8/],
    [`postgres://ada:${secret}%00@db/shop`, /zero byte/],
    [`postgres://ada:${secret}\nword@db/shop`, /control character/],
    [`postgres://ada:${secret}`, encode],
    [`postgres://ada:${secret}@db:port/shop`, /not a number from 1 to 65535/],
    [`postgres://ada:${secret}@db:0/shop`, /not a number from 1 to 65535/],
    [`postgres://ada:${secret}@db:65536/shop`, /not a number from 1 to 65535/],
    [`postgres://ada:${secret}@db:-1/shop`, /not a number from 1 to 65535/],
    [`postgres://ada:${secret}@::1/shop`, /brackets/],
    [`postgres://ada:${secret}@db/shop?host=a,b&port=1,2,3`, /the number of `port`s/],
    [`postgres://ada:${secret}@db/shop?sslmod=require`, /`sslmod`.*Did you mean `sslmode`/],
    [`postgres://ada:${secret}@db/shop?schema=public`, /`schema`/],
    [`postgres://ada:${secret}@db/shop?sslmode=allow`, /`sslmode` is not one of disable/],
    [`postgres://ada:${secret}@db/shop?ssl=maybe`, /`ssl` is not one of/],
    [`postgres://ada:${secret}@db/shop?sslmode=require&sslrootcert=system`, /needs `sslmode=verify-full`/],
    [`postgres://ada:${secret}@db/shop?sslmode=verify-ca&uselibpqcompat=true`, /needs `sslrootcert`/],
    [`postgres://ada:${secret}@db/shop?sslnegotiation=sometimes`, /`sslnegotiation`/],
    [`postgres://ada:${secret}@db/shop?sslmode=disable&sslnegotiation=direct`, /sslnegotiation=direct/],
    [`postgres://ada:${secret}@db/shop?connect_timeout=soon`, /`connect_timeout` is not an integer/],
    [
      `postgres://ada:${secret}@db/shop?target_session_attrs=standby`,
      /`target_session_attrs` is not one of any, read-write, primary/,
    ],
    [`postgres://ada:${secret}@db/shop?gssencmode=require`, /`gssencmode`/],
    [`postgres://ada:${secret}@db/shop?hostaddr=127.0.0.1`, /`hostaddr`/],
    [`postgres://ada:${secret}@db/shop?passfile=/tmp/x`, /PGPASSFILE/],
    ['postgres://?service=shop', /service files \(PGSERVICEFILE/],
    [`mysql://ada:${secret}@db/shop`, /postgres:\/\/ URL/],
    [`host=db password=${secret}`, /postgres:\/\/ URL/],
    ['', /postgres:\/\/ URL/],
  ])('%s', (url, message) => {
    const make = (): unknown => createBus({ database: url, events: paymentEvents, source: 's' })
    expect(make).toThrow(
      expect.objectContaining({
        code: 'BUS_INVALID_OPTION',
        message: expect.stringMatching(message) as string,
      }),
    )
    expect(make).not.toThrow(secret)
    expect(() =>
      createBus({ database: { connectionString: url }, events: paymentEvents, source: 's' }),
    ).not.toThrow(secret)
  })
})

describe('a pool configuration is looked at by createBus', () => {
  test.each<[unknown, RegExp]>([
    [{ port: 65_536 }, /`port`/],
    [{ port: 'http' }, /`port`/],
    [{ host: 5 }, /`host` is a string/],
    [{ user: {} }, /`user` is a string/],
    [{ database: 7 }, /`database` is a string/],
    [{ application_name: 7 }, /`application_name` is a string/],
    [{ password: 42 }, /`password` is a string or a function, got a value of type number/],
    [{ max: 0 }, /`max` is an integer from 1/],
    [{ max: -1 }, /`max`/],
    [{ max: '10' }, /`max`/],
    [{ max: Number.POSITIVE_INFINITY }, /`max`/],
    [{ connectionTimeoutMillis: -1 }, /`connectionTimeoutMillis`/],
    [{ connectionTimeoutMillis: Number.POSITIVE_INFINITY }, /`connectionTimeoutMillis`/],
    [{ idleTimeoutMillis: 'long' }, /`idleTimeoutMillis`/],
    [{ ssl: 'sometimes' }, /`ssl`/],
    [{ sslnegotiation: 'sometimes' }, /sslnegotiation/],
    [{ connectionString: '/var/run/postgresql shop' }, /`connectionString` is a postgres:\/\/ URL/],
    [{ connectionString: 5 }, /`connectionString`/],
    [{ connect: () => {} }, /got a client: the bus opens its own connections/],
    [new URL('postgres://db/shop'), /`href`/],
    [[], /postgres:\/\/ URL/],
    [null, /postgres:\/\/ URL/],
    [undefined, /postgres:\/\/ URL/],
    [5432, /postgres:\/\/ URL/],
  ])('%o is refused', (database, message) => {
    expect(() => createBus({ database: database as string, events: paymentEvents, source: 's' })).toThrow(
      expect.objectContaining({
        code: 'BUS_INVALID_OPTION',
        message: expect.stringMatching(message) as string,
      }),
    )
  })

  test('what the URL has comes before what stands beside it, what it leaves out does not', () => {
    const password = async (): Promise<string> => 'x'
    const given = {
      connectionString: 'postgres://db:1/shop',
      host: 'other',
      user: 'ada',
      password,
      max: undefined,
    }
    const { config, hosts } = toTarget(given)
    expect(config).toMatchObject({
      user: 'ada',
      password,
      database: 'shop',
      connectionTimeoutMillis: 10_000,
    })
    expect(hosts).toEqual([{ host: 'db', port: 1 }])
  })
})
