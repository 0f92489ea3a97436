import { expect, test } from 'vitest'
import { isFromThisMachine } from '../../src/http/loopback.ts'

test.each([
  ['127.0.0.1', 'localhost'],
  ['127.0.0.1', 'localhost:3000'],
  ['127.8.9.10', '127.0.0.1:3000'],
  ['::1', '[::1]:3000'],
  ['::ffff:127.0.0.1', 'LOCALHOST:3000'],
  ['127.0.0.1', 'app.localhost:3000'],
])('a request over loopback and for a loopback name is from this machine: %s, %s', (address, host) => {
  expect(isFromThisMachine({ address, headers: { host } })).toBe(true)
})

test.each([
  // From another machine, whatever the host says.
  ['10.0.0.7', { host: 'localhost' }],
  ['::ffff:10.0.0.7', { host: 'localhost' }],
  ['128.0.0.1', { host: 'localhost' }],
  ['', { host: 'localhost' }],
  [undefined, { host: 'localhost' }],
  // A name that leads to this machine: DNS rebinding.
  ['127.0.0.1', { host: 'evil.example' }],
  ['127.0.0.1', { host: 'evil.example:3000' }],
  ['127.0.0.1', { host: 'localhost.evil.example' }],
  ['127.0.0.1', { host: '127.0.0.1.evil.example' }],
  ['127.0.0.1', { host: 'evil.example#localhost' }],
  ['127.0.0.1', { host: '[fe80::1]:3000' }],
  ['127.0.0.1', { host: '0.0.0.0:3000' }],
  ['127.0.0.1', { host: '' }],
  ['127.0.0.1', {}],
  // A proxy on this machine forwards the requests of others.
  ['127.0.0.1', { host: 'localhost', 'x-forwarded-for': '10.0.0.7' }],
  ['127.0.0.1', { host: 'localhost', 'x-forwarded-for': '' }],
  ['127.0.0.1', { host: 'localhost', forwarded: 'for=10.0.0.7' }],
  ['127.0.0.1', { host: 'localhost', 'x-real-ip': '10.0.0.7' }],
  ['127.0.0.1', { host: 'localhost', 'x-forwarded-host': 'ops.example' }],
  ['127.0.0.1', { host: 'localhost', via: '1.1 proxy' }],
  ['127.0.0.1', { host: 'localhost', 'x-forwarded-proto': 'https' }],
  ['127.0.0.1', { host: 'localhost', 'x-forwarded-server': 'ops.example' }],
  ['127.0.0.1', { host: 'localhost', 'x-client-ip': '10.0.0.7' }],
  ['127.0.0.1', { host: 'localhost', 'cf-connecting-ip': '10.0.0.7' }],
])('anything else is not: %s, %o', (address, headers) => {
  expect(isFromThisMachine({ address, headers })).toBe(false)
})
