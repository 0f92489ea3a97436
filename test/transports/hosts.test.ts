import { describe, expect, test } from 'vitest'
import { transportFromUrl } from '../../src/transports/index.ts'
import { TransportUrl } from '../../src/transports/sending/transport-url.ts'

describe('the hosts of a URL', () => {
  test.each([
    ['kafka://one/t', ['one:9092']],
    ['kafka://one:1/t', ['one:1']],
    ['kafka://one:1,two:2/t', ['one:1', 'two:2']],
    ['kafka://one,two,three:3/t?a=b,c', ['one:9092', 'two:9092', 'three:3']],
    ['kafka://user:p%40ss,word@one:1,two/t', ['one:1', 'two:9092']],
    ['kafka://[::1]:1,[::2]/t', ['[::1]:1', '[::2]:9092']],
    ['kafka://one,two', ['one:9092', 'two:9092']],
  ])('of %s', (text, hosts) => {
    expect(new TransportUrl(text).hosts(9092)).toEqual(hosts)
  })

  test('the other parts are there once', () => {
    const url = new TransportUrl('kafka://us%2Fer:pass@one:1,two:2/orders?sasl=plain')
    expect([url.username, url.password, url.path, url.text('sasl')]).toEqual([
      'us/er',
      'pass',
      'orders',
      'plain',
    ])
  })

  test.each(['kafka://one:1,two:x/t', 'kafka://one,tw o/t', 'kafka://one:99999,two/t'])(
    'refuses %s, without showing it',
    (text) => {
      expect(() => new TransportUrl(text)).toThrow(/^Expected the URL of a transport, such as .* no URL$/)
    },
  )

  test('an empty host among them is refused', () => {
    expect(() => new TransportUrl('kafka://one,/t').hosts(1)).toThrow('the host is missing')
  })

  test('a system of one server refuses several', () => {
    expect(() => new TransportUrl('mqtt://one,two/t').host(1)).toThrow('it has several hosts')
  })
})

describe('several URLs in a text', () => {
  const namesOf = (text: string): string[] =>
    (transportFromUrl(text).targets ?? [transportFromUrl(text)]).map(({ name }) => name)

  test.each([
    ['noop:,console:', ['noop', 'console']],
    ['noop:, console:', ['noop', 'console']],
    ['noop: console:', ['noop', 'console']],
    [' ,noop:,\nconsole:, ', ['noop', 'console']],
    ['file:///tmp/a,b.ndjson,noop:', ['file', 'noop']],
  ])('%j', (text, names) => {
    expect(namesOf(text)).toEqual(names)
  })

  test('a comma between hosts separates no URLs', () => {
    expect(() => transportFromUrl('unheard://one:1,two:2/t,noop:')).toThrow('the scheme `unheard`')
    expect(() => transportFromUrl('noop:,unheard://one:1,two:2/t')).toThrow('unheard://one:1…')
  })
})
