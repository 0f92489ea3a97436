import { createRequire } from 'node:module'
import { Ajv } from 'ajv'
import addFormats from 'ajv-formats'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineEvents } from '../../../src/index.ts'
import { toAsyncApi } from '../../../src/events/contracts/asyncapi.ts'
import { describeCatalogue } from '../../../src/events/contracts/catalogue-description.ts'

const asyncApiSchema = createRequire(import.meta.url)(
  '@asyncapi/specs/schemas/3.0.0-without-$id.json',
) as object

/** The official JSON Schema of AsyncAPI 3.0. */
function validator() {
  const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: true })
  ;(addFormats as unknown as (ajv: Ajv) => void)(ajv)
  return ajv.compile(asyncApiSchema)
}

const tree: z.ZodType = z.object({ children: z.array(z.lazy(() => tree)) })
const events = defineEvents({
  'payment.paid': {
    schema: z.object({ id: z.uuid(), at: z.iso.datetime() }),
    version: 2,
    sources: ['pay'],
    redact: ['id'],
  },
  'usage.billed': { schema: z.object({ units: z.number() }), sources: ['billing'] },
  tree: { schema: tree },
  'io.k8s.x/v1': { schema: z.object({ id: z.string() }) },
  'Order Completed': { schema: tree },
  'Order:Completed': { schema: z.object({ children: z.string() }) },
  open: { schema: { '~standard': { version: 1, vendor: 'own', validate: (value: unknown) => ({ value }) } } },
})

describe.each(['cloudevents', 'plain'] as const)('the AsyncAPI document, %s', async (envelope) => {
  const described = await describeCatalogue(events, 'draft-07')
  const older = { ...described[0], type: 'payment.paid', version: 1 } as (typeof described)[number]
  const document = JSON.parse(
    JSON.stringify(toAsyncApi([...described, older], { source: 'pay', apiVersion: '1.2.3', envelope })),
  ) as Record<string, unknown>

  test('is valid by the official schema, which refuses others', () => {
    const validate = validator()
    expect([validate(document), validate.errors]).toEqual([true, null])
    expect(validate({ ...document, channels: [] })).toBe(false)
    expect(
      validate({ ...document, operations: { x: { action: 'shout', channel: { $ref: '#/channels/tree' } } } }),
    ).toBe(false)
  })

  test('refers only to what it has', () => {
    const refs = [...JSON.stringify(document).matchAll(/"\$ref":"([^"]+)"/g)].map(([, ref = '']) => ref)
    expect(refs.length).toBeGreaterThan(10)
    for (const ref of refs) {
      const found = ref
        .slice(2)
        .split('/')
        .reduce<unknown>((at, key) => (at as Record<string, unknown> | undefined)?.[key], document)
      expect([ref, found === undefined]).toEqual([ref, false])
    }
  })

  test('has a channel for each type, a message for each version, and sends what the service may', () => {
    expect(Object.keys(document['channels'] as object)).toEqual([
      expect.stringMatching(/^Order_Completed-[0-9a-f]{8}$/),
      expect.stringMatching(/^Order_Completed-[0-9a-f]{8}$/),
      expect.stringMatching(/^io\.k8s\.x_v1-[0-9a-f]{8}$/),
      'open',
      'payment.paid',
      'tree',
      'usage.billed',
    ])
    expect(
      Object.values(document['channels'] as object).map(({ address }: { address: string }) => address),
    ).toEqual([
      ...[
        'Order Completed',
        'Order:Completed',
        'io.k8s.x/v1',
        'open',
        'payment.paid',
        'tree',
        'usage.billed',
      ],
    ])
    expect(document).toMatchObject({
      info: { title: 'Events of pay', version: '1.2.3' },
      channels: {
        'payment.paid': {
          address: 'payment.paid',
          messages: { 'payment.paid.v1': {}, 'payment.paid.v2': {} },
        },
      },
      operations: {
        'publish-payment.paid': {
          action: 'send',
          messages: [{ $ref: '#/channels/payment.paid/messages/payment.paid.v2' }],
        },
        'receive-payment.paid': { action: 'receive' },
        'receive-usage.billed': { action: 'receive' },
      },
    })
    expect(document['operations']).not.toHaveProperty('publish-usage.billed')
  })
})
