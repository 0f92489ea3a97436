/**
 * What is certain about the texts of a format, whichever library checks it: texts that match `always` have the format,
 * texts that do not match `never` do not. For all other texts libraries may differ.
 */
interface FormatShape {
  readonly always: RegExp
  /** Without lookarounds, so that it can be compared as a pattern. */
  readonly never: RegExp
  readonly samples: readonly string[]
}

const uuid: FormatShape = {
  always: /^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[1-8][0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}$/,
  never: /^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$/,
  samples: [1, 4, 7].map((version) => `0191e6b7-5f3c-${version}abc-8def-0123456789ab`),
}

const email: FormatShape = {
  always: /^[a-z]{1,20}@[a-z]{1,20}\.[a-z]{2,6}$/,
  never: /^[^@]+@[^]+$/,
  samples: ['anna@example.org'],
}

const shapes: Readonly<Record<string, FormatShape>> = {
  uuid,
  guid: uuid,
  email,
  'idn-email': email,
  date: {
    always: /^(19|20)\d\d-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])$/,
    never: /^\d{4}-\d{2}-\d{2}$/,
    samples: ['2020-02-29', '1999-12-31'],
  },
  'date-time': {
    always: /^(19|20)\d\d-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ$/,
    never: /^\d{4}-\d{2}-\d{2}[Tt ]\d{2}[^]*$/,
    samples: [
      '2020-02-29T12:30:45Z',
      '2020-02-29T12:30:45+02:00',
      '2020-02-29T12:30:45.123Z',
      '2020-02-29T12:30:45',
    ],
  },
  time: {
    always: /^([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ$/,
    never: /^\d{2}:\d{2}[^]*$/,
    samples: ['12:30:45Z', '12:30:45'],
  },
  duration: { always: /^P\d{1,3}D$/, never: /^-?P[^]+$/, samples: ['P3D'] },
  ipv4: {
    always: /^(1\d\d|[1-9]\d)\.(1\d\d|\d)\.(1\d\d|\d)\.(1\d\d|\d)$/,
    never: /^\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}$/,
    samples: ['192.0.2.1', '10.0.0.1'],
  },
  ipv6: {
    always: /^([1-9a-f][0-9a-f]{3}:){7}[1-9a-f][0-9a-f]{3}$/,
    never: /^[0-9A-Fa-f:.%]*:[0-9A-Fa-f:.%]*$/,
    samples: ['2001:db8a:1111:2222:3333:4444:5555:6666'],
  },
  uri: {
    always: /^https:\/\/[a-z]{1,20}\.(org|com)(\/[a-z]{1,20})?$/,
    never: /^[A-Za-z][A-Za-z0-9+.-]*:[^]*$/,
    samples: ['https://example.org/path'],
  },
  hostname: {
    always: /^[a-z]{2,20}\.(org|com)$/,
    never: /^[^\s/@:]+$/,
    samples: ['example.org'],
  },
}

/** Formats whose texts all have another format too. */
const wider: Readonly<Record<string, readonly string[]>> = {
  ...Object.fromEntries([1, 2, 3, 4, 5, 6, 7, 8].map((version) => [`uuidv${version}`, ['uuid', 'guid']])),
  uuid: ['guid'],
  email: ['idn-email'],
  hostname: ['idn-hostname'],
  uri: ['uri-reference', 'iri', 'iri-reference'],
  url: ['uri'],
  'uri-reference': ['iri-reference'],
  iri: ['iri-reference'],
  int32: ['int64', 'double'],
  float: ['double'],
}

/** Formats that refuse no text: display and transfer formats, and the name zod uses for its patterns. */
export const unrestricting: ReadonlySet<unknown> = new Set([
  ...['password', 'binary'],
  ...['starts_with', 'ends_with', 'includes', 'lowercase', 'uppercase', 'regex', 'template_literal'],
])

/** Formats of numbers; all others apply to texts. */
export const numberFormats: ReadonlySet<unknown> = new Set([
  'int32',
  'int64',
  'float',
  'double',
  'uint32',
  'uint64',
])

/** Whether every text of a format also has another format. */
export function isWithin(format: string, other: string): boolean {
  return format === other || (wider[format] ?? []).some((next) => isWithin(next, other))
}

/** Undefined if it cannot be told. */
export function fitsFormat(text: string, format: string): boolean | undefined {
  if (unrestricting.has(format)) return true
  const shape = shapeOf(format)
  if (shape === undefined) return undefined
  if (!shape.never.test(text)) return false
  return format.startsWith('uuidv') ? undefined : shape.always.test(text) ? true : undefined
}

/** A pattern that all texts of a format match, if one is known. */
export function patternAround(format: string): string | undefined {
  return shapeOf(format)?.never.source
}

/** A pattern whose texts all have a format, if one is known. */
export function patternWithin(format: string): string | undefined {
  return format.startsWith('uuidv') ? undefined : shapeOf(format)?.always.source
}

/** A few texts of each format. */
export const formatSamples: readonly string[] = [
  ...new Set(Object.values(shapes).flatMap(({ samples }) => samples)),
]

function shapeOf(format: string): FormatShape | undefined {
  const name = format.startsWith('uuidv') ? 'uuid' : format
  return Object.hasOwn(shapes, name) ? shapes[name] : undefined
}
