import { CloudEvent as SdkCloudEvent, HTTP, Kafka } from 'cloudevents'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  fromCloudEvent,
  fromCloudEventHeaders,
  toCloudEvent,
  toCloudEventHeaders,
  type StoredEvent,
} from '../../../src/index.ts'
import { parseJson } from '../../../src/events/json/parse-json.ts'
import { anyJson, keyText, uuid } from '../../support/arbitrary.ts'
import { roomFor } from '../../support/slowness.ts'
import { cpuMsOf } from '../../foundation/cpu-time.ts'
import { refusalOf } from '../../foundation/refusal.ts'

const stored: StoredEvent = {
  id: '01932f2c-5b4e-7cc0-8a2d-3f1e5d7c9b10',
  type: 'payment.paid',
  source: 'payment-service',
  subject: 'payments/42',
  tenantId: 'acme',
  payload: { paymentId: '42', amountCents: 4200 },
  schemaVersion: 2,
  eventId: 'paid-42',
  idempotencyKey: 'request-7',
  correlationId: 'checkout-1',
  causationId: '01932f2c-5b4e-7cc0-8a2d-3f1e5d7c9b00',
  orderingKey: '42',
  metadata: {
    traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    tracestate: 'rojo=00f067aa0ba902b7',
    'x-request-id': 'r1',
  },
  expiresAt: new Date('2026-12-01T00:00:00.000Z'),
  createdAt: new Date('2026-11-25T08:00:00.123Z'),
}

const illegal = /[\p{Cc}\p{Cs}\p{Noncharacter_Code_Point}]/u

/** What CloudEvents takes as a text. */
const legalText = keyText.filter((text) => !illegal.test(text))

const storedEvent: fc.Arbitrary<StoredEvent> = fc.record({
  id: uuid,
  type: fc.constantFrom('payment.paid', 'a', 'A-1_b.0'),
  source: legalText,
  subject: fc.option(legalText, { nil: undefined }),
  tenantId: legalText,
  payload: anyJson,
  schemaVersion: fc.integer({ min: 1, max: 32_767 }),
  eventId: fc.option(legalText, { nil: undefined }),
  idempotencyKey: fc.option(legalText, { nil: undefined }),
  correlationId: fc.option(legalText, { nil: undefined }),
  causationId: fc.option(uuid, { nil: undefined }),
  orderingKey: fc.option(legalText, { nil: undefined }),
  metadata: fc.dictionary(
    fc.oneof(keyText, fc.constantFrom('traceparent', 'tenantid', 'id', 'schemaurl', 'constructor', '')),
    fc.oneof(keyText, fc.constant('')),
    { maxKeys: 6 },
  ),
  expiresAt: fc.option(
    fc.date({ min: new Date(0), max: new Date('9999-12-31T00:00:00Z'), noInvalidDate: true }),
    {
      nil: undefined,
    },
  ),
  createdAt: fc.date({ min: new Date(0), max: new Date('9999-12-31T00:00:00Z'), noInvalidDate: true }),
})

describe('a stored event', () => {
  test('becomes a CloudEvent 1.0 with an extension for each of its fields', () => {
    expect(toCloudEvent(stored)).toEqual({
      specversion: '1.0',
      id: stored.id,
      source: 'payment-service',
      type: 'payment.paid',
      subject: 'payments/42',
      time: '2026-11-25T08:00:00.123Z',
      datacontenttype: 'application/json',
      tenantid: 'acme',
      eventid: 'paid-42',
      idempotencykey: 'request-7',
      correlationid: 'checkout-1',
      causationid: stored.causationId,
      partitionkey: '42',
      expirytime: '2026-12-01T00:00:00.000Z',
      schemaversion: 2,
      traceparent: stored.metadata['traceparent'],
      tracestate: stored.metadata['tracestate'],
      busmetadata: '{"x-request-id":"r1"}',
      data: { paymentId: '42', amountCents: 4200 },
    })
    expect(toCloudEvent(stored, { dataSchema: 'https://acme.example/paid.json' })['dataschema']).toBe(
      'https://acme.example/paid.json',
    )
  })

  test.each([
    ['payment-service', 'payment-service'],
    ['/billing/eu', '/billing/eu'],
    ['https://acme.example/a%20b?c#d', 'https://acme.example/a%20b?c#d'],
    ['urn:acme:billing', 'urn:acme:billing'],
    ['my service', 'my%20service'],
    ['100%', '100%25'],
    ['a%20b', 'a%2520b'],
    ['//host', '%2F%2Fhost'],
    ['1a:b', '1a%3Ab'],
    ['Zahlungen ☃', 'Zahlungen%20%E2%98%83'],
    ['http://[::1', 'http%3A%2F%2F%5B%3A%3A1'],
  ])('has its source %j as the URI-reference %j', (source, reference) => {
    expect(toCloudEvent({ ...stored, source }).source).toBe(reference)
  })

  test('is refused where a text is one that CloudEvents does not allow', async () => {
    for (const character of ['\n', '\u0000', '\u007f', '\u0085', '\uffff', '\ufdd0']) {
      for (const field of ['subject', 'tenantId', 'eventId', 'correlationId', 'orderingKey'] as const) {
        expect(await refusalOf(() => toCloudEvent({ ...stored, [field]: `a${character}b` }))).toMatchObject({
          code: 'BUS_INVALID_CLOUD_EVENT',
          name: 'InvalidEventError',
          retryable: false,
        })
      }
      // Metadata has a way for any text.
      const metadata = { trace: `a${character}b` }
      expect(toCloudEvent({ ...stored, metadata })['busmetadata']).not.toMatch(illegal)
      expect(fromCloudEvent(toCloudEvent({ ...stored, metadata })).event.metadata).toMatchObject(metadata)
    }
  })

  test.each([new Date(Number.NaN), new Date('+010000-01-01T00:00:00Z'), new Date('-000001-01-01T00:00:00Z')])(
    'is refused where a time is one that RFC 3339 cannot write: %s',
    async (time) => {
      for (const [field, name] of [
        ['createdAt', 'time'],
        ['expiresAt', 'expirytime'],
      ] as const) {
        expect(await refusalOf(() => toCloudEvent({ ...stored, [field]: time }))).toMatchObject({
          code: 'BUS_INVALID_CLOUD_EVENT',
          message: expect.stringContaining(`\`${name}\``) as string,
        })
      }
    },
  )

  test('comes back from its CloudEvent, also as JSON text, whatever is in it', () => {
    fc.assert(
      fc.property(storedEvent, (event) => {
        const cloudEvent = toCloudEvent(event)
        // JSON.parse may take one key for another: see parse-json.ts.
        for (const given of [cloudEvent, parseJson(JSON.stringify(cloudEvent))]) {
          const { event: received, sent } = fromCloudEvent(given)
          const metadata = {
            ...event.metadata,
            cesource: cloudEvent.source,
            ceid: event.id,
            ...(event.eventId === undefined ? {} : { eventid: event.eventId }),
            ...(event.idempotencyKey === undefined ? {} : { idempotencykey: event.idempotencyKey }),
          }
          expect({ ...received, eventId: undefined, payload: JSON.stringify(received.payload) }).toEqual({
            type: event.type,
            payload: JSON.stringify(event.payload),
            tenantId: event.tenantId,
            subject: event.subject,
            correlationId: event.correlationId,
            causationId: event.causationId,
            orderingKey: event.orderingKey,
            expiresAt: event.expiresAt,
            metadata,
          })
          expect(sent).toEqual({
            id: event.id,
            source: cloudEvent.source,
            time: event.createdAt,
            dataSchema: undefined,
            schemaVersion: event.schemaVersion,
            eventId: event.eventId,
            idempotencyKey: event.idempotencyKey,
          })
        }
      }),
      { numRuns: 500 },
    )
  })

  test('is valid for the official SDK, strictly, and over HTTP in both modes and Kafka', () => {
    fc.assert(
      fc.property(storedEvent, (event) => {
        const cloudEvent = toCloudEvent(event)
        const sdkEvent = new SdkCloudEvent({ ...cloudEvent }, true)
        expect(sdkEvent.validate()).toBe(true)
        // Structured, as anybody would send it.
        const structured = HTTP.toEvent({
          headers: { 'content-type': 'application/cloudevents+json' },
          body: JSON.stringify(cloudEvent),
        }) as SdkCloudEvent
        expect(structured.validate()).toBe(true)
        expect(attributesOf(structured)).toEqual(attributesOf(cloudEvent))
        // The SDK drops a payload that is falsy.
        const payload = parseJson(JSON.stringify(event.payload))
        expect(structured.data).toEqual(payload ? payload : undefined)
        // Binary: the SDK leaves percent-encoding to others.
        const headers = toCloudEventHeaders(cloudEvent, 'http')
        expect(Object.values(headers)).not.toEqual([])
        expect(Object.values(headers).filter((value) => !/^[\x21-\x7e]*$/.test(value))).toEqual([])
        const binary = HTTP.toEvent({ headers, body: JSON.stringify(event.payload) }) as SdkCloudEvent
        expect(binary.validate()).toBe(true)
        const kafka = Kafka.toEvent({
          headers: toCloudEventHeaders(cloudEvent, 'kafka'),
          body: undefined,
          key: event.orderingKey,
          value: JSON.stringify(event.payload),
        } as never) as SdkCloudEvent
        expect(kafka.validate()).toBe(true)
        expect(kafka).toMatchObject({ id: event.id, tenantid: event.tenantId, source: cloudEvent.source })
        // And back, from what the SDK makes of it.
        for (const given of [sdkEvent, structured])
          expect(fromCloudEvent(given).event).toMatchObject({ tenantId: event.tenantId, type: event.type })
      }),
      { numRuns: 200 },
    )
  })

  test('comes back from its headers in binary mode', () => {
    fc.assert(
      fc.property(
        storedEvent,
        fc.constantFrom('http' as const, 'kafka' as const, 'nats' as const, 'amqp' as const, 'mqtt' as const),
        (event, protocol) => {
          const cloudEvent = toCloudEvent(event)
          const headers = toCloudEventHeaders(cloudEvent, protocol)
          const read = fromCloudEventHeaders(headers, event.payload, protocol)
          expect(fromCloudEvent(read)).toEqual(fromCloudEvent(cloudEvent))
        },
      ),
    )
  })
})

function attributesOf(cloudEvent: object): Record<string, unknown> {
  const entries = Object.entries(cloudEvent).filter(
    ([name, value]) => !name.startsWith('data_') && name !== 'data' && value !== undefined,
  )
  return Object.fromEntries(entries)
}

describe('a CloudEvent of somebody else', () => {
  const foreign = {
    specversion: '1.0',
    id: 'A234-1234-1234',
    source: '/mycontext',
    type: 'com.example.someevent',
    time: '2018-04-05T17:31:00Z',
    datacontenttype: 'application/json; charset=utf-8',
    comexampleextension1: 'value',
    comexampleothervalue: 5,
    flag: true,
    data: { appinfoA: 'abc' },
  }

  test('is for publish: id and source are the event id, extensions are metadata', () => {
    expect(fromCloudEvent(foreign, { tenantId: 'acme' })).toEqual({
      event: {
        type: 'com.example.someevent',
        tenantId: 'acme',
        payload: { appinfoA: 'abc' },
        eventId: '/mycontext A234-1234-1234',
        metadata: {
          comexampleextension1: 'value',
          comexampleothervalue: '5',
          flag: 'true',
          cesource: '/mycontext',
          ceid: 'A234-1234-1234',
        },
      },
      sent: {
        id: 'A234-1234-1234',
        source: '/mycontext',
        time: new Date('2018-04-05T17:31:00Z'),
        dataSchema: undefined,
        schemaVersion: undefined,
        eventId: undefined,
        idempotencyKey: undefined,
      },
    })
  })

  test('has an event id of its own, whatever the lengths of id and source', () => {
    const idOf = (source: string, id: string): string | undefined =>
      fromCloudEvent({ ...foreign, source, id }, { tenantId: 'acme' }).event.eventId
    expect(idOf('/a', 'x'.repeat(252))).toBe(`/a ${'x'.repeat(252)}`)
    expect(idOf('/a', 'x'.repeat(253))).toMatch(/^sha256:[0-9a-f]{64}$/)
    expect(idOf('/a', 'x'.repeat(253))).not.toBe(idOf('/b', 'x'.repeat(253)))
    expect(idOf('/a', 'x'.repeat(253))).toBe(idOf('/a', 'x'.repeat(253)))
  })

  test('is of the tenant of the option, before that of the sender, and of no other', async () => {
    const claimed = { ...foreign, tenantid: 'mallory' }
    expect(fromCloudEvent(claimed, { tenantId: 'acme' }).event.tenantId).toBe('acme')
    expect(fromCloudEvent(claimed).event.tenantId).toBe('mallory')
    expect(await refusalOf(() => fromCloudEvent(foreign))).toMatchObject({ code: 'BUS_TENANT_REQUIRED' })
    expect(await refusalOf(() => fromCloudEvent(foreign, { tenantId: '' }))).toMatchObject({
      code: 'BUS_INVALID_OPTION',
    })
  })

  test('keeps a causation id that is no uuid in the metadata', () => {
    const { event } = fromCloudEvent({ ...foreign, causationid: 'c1' }, { tenantId: 'acme' })
    expect(event).not.toHaveProperty('causationId')
    expect(event.metadata).toMatchObject({ causationid: 'c1' })
  })

  test.each<[string, unknown]>([
    ['null', null],
    ['a text', JSON.stringify(foreign)],
    ['a list', [foreign]],
    ['no version', { ...foreign, specversion: undefined }],
    ['version 0.3', { ...foreign, specversion: '0.3' }],
    ['no id', { ...foreign, id: undefined }],
    ['an empty id', { ...foreign, id: '' }],
    ['an id that is a number', { ...foreign, id: 5 }],
    ['no source', { ...foreign, source: null }],
    ['a source that is no URI-reference', { ...foreign, source: 'my service' }],
    ['no type', { ...foreign, type: '' }],
    ['a time in words', { ...foreign, time: 'yesterday' }],
    ['a time without a zone', { ...foreign, time: '2018-04-05T17:31:00' }],
    ['the 31st of April', { ...foreign, time: '2018-04-41T17:31:00Z' }],
    ['XML', { ...foreign, datacontenttype: 'application/xml', data: '<x/>' }],
    ['binary data', { ...foreign, data: undefined, data_base64: 'AAAA' }],
    ['an extension in camel case', { ...foreign, traceParent: 'x' }],
    ['an extension named __proto__', JSON.parse(`{"__proto__": {"polluted": 1}, "id": "x"}`) as unknown],
    ['an extension that is an object', { ...foreign, x: {} }],
    ['an extension that is a fraction', { ...foreign, x: 1.5 }],
    [
      'a getter that throws',
      Object.defineProperty({ ...foreign }, 'id', {
        enumerable: true,
        get: () => {
          throw new Error('secret')
        },
      }),
    ],
    ['a toJSON that gives nothing', { toJSON: () => null }],
  ])('is refused with a typed error: %s', async (_what, given) => {
    const error = await refusalOf(() => fromCloudEvent(given, { tenantId: 'acme' }))
    expect(error).toMatchObject({ code: 'BUS_INVALID_CLOUD_EVENT', name: 'InvalidEventError' })
    expect(JSON.stringify(error.cause ?? '')).not.toContain('secret')
  })

  test.each<[string, Record<string, unknown>]>([
    ['half a percent', { 'ce-subject': '%E2%98' }],
    ['a header that came twice', { 'ce-subject': ['a', 'b'] }],
    ['the data as a header', { 'ce-data': 'x' }],
  ])('is refused with a typed error where its headers have %s', async (_what, headers) => {
    expect(await refusalOf(() => fromCloudEventHeaders(headers, {}, 'http'))).toMatchObject({
      code: 'BUS_INVALID_CLOUD_EVENT',
    })
  })

  test('is judged in a moment, whatever somebody sends', () => {
    const sources = [
      'a'.repeat(1e6) + ' ',
      `${'%41'.repeat(3e5)}%`,
      `//${'a@'.repeat(3e5)}`,
      'a:'.repeat(5e5) + ' ',
    ]
    for (const source of sources) {
      const cpuMs = cpuMsOf(() => {
        expect(() => fromCloudEvent({ ...foreign, source }, { tenantId: 'acme' })).toThrow('URI-reference')
      })
      expect(cpuMs).toBeLessThan(roomFor(100))
    }
    for (const datacontenttype of ['a/'.repeat(5e5), `a/${'a+'.repeat(5e5)}`, `a/json${' '.repeat(1e6)}x`]) {
      const cpuMs = cpuMsOf(() => {
        expect(() => fromCloudEvent({ ...foreign, datacontenttype }, { tenantId: 'acme' })).toThrow('JSON')
      })
      expect(cpuMs).toBeLessThan(roomFor(100))
    }
    expect(
      cpuMsOf(() => fromCloudEventHeaders({ 'ce-subject': `"${'\\a'.repeat(65_000)}` }, {}, 'http')),
    ).toBeLessThan(roomFor(100))
  })
})

describe('a time of RFC 3339', () => {
  const received = (time: string): Date | undefined =>
    fromCloudEvent({ specversion: '1.0', id: '1', source: '/s', type: 't', tenantid: 'acme', time }).sent.time

  test.each([
    ['2026-11-25T08:00:00Z', '2026-11-25T08:00:00.000Z'],
    ['2026-11-25t08:00:00z', '2026-11-25T08:00:00.000Z'],
    ['2026-11-25T08:00:00.123456789012Z', '2026-11-25T08:00:00.123Z'],
    ['2026-11-25T08:00:00.9999Z', '2026-11-25T08:00:00.999Z'],
    ['2026-11-25T08:00:00.1+01:30', '2026-11-25T06:30:00.100Z'],
    ['2026-11-25T08:00:00-00:00', '2026-11-25T08:00:00.000Z'],
    ['2016-12-31T23:59:60Z', '2017-01-01T00:00:00.000Z'],
    ['2016-12-31T15:59:60.25-08:00', '2017-01-01T00:00:00.250Z'],
    ['2015-06-30T23:59:60Z', '2015-07-01T00:00:00.000Z'],
    ['2024-02-29T00:00:00Z', '2024-02-29T00:00:00.000Z'],
    ['2000-02-29T00:00:00Z', '2000-02-29T00:00:00.000Z'],
    ['0001-01-01T00:00:00Z', '0001-01-01T00:00:00.000Z'],
  ])('%s is %s', (text, time) => {
    expect(received(text)?.toISOString()).toBe(time)
  })

  test.each([
    ...['2020-02-30T00:00:00Z', '2023-02-29T00:00:00Z', '1900-02-29T00:00:00Z', '2026-04-31T00:00:00Z'],
    ...['2026-13-01T00:00:00Z', '2026-00-01T00:00:00Z', '2026-01-00T00:00:00Z', '2026-01-32T00:00:00Z'],
    ...['2026-01-01T24:00:00Z', '2026-01-01T00:60:00Z', '2026-01-01T00:00:61Z', '2026-01-01T00:00:00+24:00'],
    ...['2026-01-01T00:00:00+00:60', '2016-12-31T23:58:60Z', '2016-12-31T22:59:60Z', '2016-12-30T23:59:60Z'],
    ...[
      '2026-01-01T00:00:00',
      '2026-01-01 00:00:00Z',
      '2026-01-01',
      '2026-01-01T00:00:00.Z',
      '2026-1-1T00:00:00Z',
    ],
    ...['2026-01-01T00:00:00,5Z', '+012026-01-01T00:00:00Z', '2026-01-01T00:00:00+0100', ''],
  ])('%j is none', async (text) => {
    expect(await refusalOf(() => received(text))).toMatchObject({ code: 'BUS_INVALID_CLOUD_EVENT' })
  })
})

describe('headers of others', () => {
  const sent = new SdkCloudEvent({
    id: '1',
    source: '/s',
    type: 'note',
    schemaversion: 2,
    urgent: true,
    data: { n: 1 },
  })
  const expected = {
    type: 'note',
    payload: { n: 1 },
    metadata: { urgent: 'true', ceid: '1', cesource: '/s' },
  }
  const read = (...args: Parameters<typeof fromCloudEventHeaders>) =>
    fromCloudEvent(fromCloudEventHeaders(...args), { tenantId: 'acme' })

  test('are read as the official SDK makes them, with numbers, booleans and undefined', () => {
    const http = HTTP.binary(sent)
    expect(read(http.headers, JSON.parse(http.body as string), 'http')).toMatchObject({
      event: expected,
      sent: { schemaVersion: 2 },
    })
    expect(
      read({ ...http.headers, 'ce-subject': undefined, 'ce-dataschema': null }, { n: 1 }, 'http').event,
    ).toMatchObject(expected)
    const kafka = Kafka.binary(sent)
    expect(read(kafka.headers, { n: 1 }, 'kafka')).toMatchObject({
      event: expected,
      sent: { schemaVersion: 2 },
    })
  })

  test('are read as Kafka clients give them: Buffers, lists of one, a Map, a list of objects, and a Buffer as the body', () => {
    const { headers } = Kafka.binary(sent)
    const buffers = Object.entries(headers).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, Buffer.from(String(value))] as const],
    )
    const body = Buffer.from('{"n":1}')
    expect(read(Object.fromEntries(buffers), body, 'kafka').event).toMatchObject(expected)
    expect(
      read(Object.fromEntries(buffers.map(([name, value]) => [name, [value]])), body, 'kafka').event,
    ).toMatchObject(expected)
    expect(
      read(new Map(buffers.map(([name, value]) => [Buffer.from(name), value])), body, 'kafka').event,
    ).toMatchObject(expected)
    expect(
      read(
        buffers.map(([name, value]) => ({ [name]: value })),
        body,
        'kafka',
      ).event,
    ).toMatchObject(expected)
    expect(
      read(new Headers(HTTP.binary(sent).headers as Record<string, string>), { n: 1 }, 'http').event,
    ).toMatchObject(expected)
  })

  test.each<[string, Parameters<typeof fromCloudEventHeaders>]>([
    ['what is no UTF-8', [{ ce_id: Buffer.from([0xff]) }, {}, 'kafka']],
    ['a list of two', [{ ce_id: [Buffer.from('a'), Buffer.from('b')] }, {}, 'kafka']],
    ['an object', [{ ce_id: {} }, {}, 'kafka']],
    ['a body that is no JSON', [{ ce_id: 'a' }, Buffer.from('{'), 'kafka']],
    ['a header twice, in different cases', [{ ce_id: 'a', CE_ID: 'b' }, {}, 'kafka']],
    ['no headers', [null as never, {}, 'kafka']],
  ])('are refused with %s', async (_, args) => {
    expect(await refusalOf(() => read(...args))).toMatchObject({
      code: 'BUS_INVALID_CLOUD_EVENT',
      statusCode: 400,
    })
  })
})
