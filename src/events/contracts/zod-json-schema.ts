/** What zod passes to an `override` of its JSON Schema. zod does not guarantee any of it, so each part is checked first. */
interface Overridden {
  readonly zodSchema: {
    readonly _zod?: {
      readonly constr?: new (def: object) => unknown
      readonly def?: CheckDefinition & {
        readonly checks?: readonly { readonly _zod?: { readonly def?: CheckDefinition } }[]
      }
    }
  }
  readonly jsonSchema: Record<string, unknown>
}

/** A check; a format such as `z.email()` or `z.int()` is itself a check. */
interface CheckDefinition {
  readonly check?: unknown
  readonly pattern?: unknown
}

interface WithJsonSchema {
  readonly '~standard': {
    readonly jsonSchema: { readonly output: (options: object) => Record<string, unknown> }
  }
}

/** Keywords that checks write. */
const checked = [
  ...[
    'type',
    'minLength',
    'maxLength',
    'pattern',
    'format',
    'contentEncoding',
    'allOf',
    'minItems',
    'maxItems',
  ],
  ...['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'],
]

/**
 * Corrects zod's description of a schema. A pattern with flags, such as `/^a/i`, accepts other texts than JSON Schema
 * would, so it is left unconstrained. And a check that ran before a value was changed in place (`trim()`,
 * `toLowerCase()`, `overwrite()`) may not hold for the result.
 */
export function overrideZod(side: 'input' | 'output', target: string): (overridden: Overridden) => void {
  return ({ zodSchema, jsonSchema }) => {
    const { constr, def } = zodSchema._zod ?? {}
    const checks = def?.checks ?? []
    const lastChange = checks.findLastIndex((check) => check._zod?.def?.check === 'overwrite')
    if (side === 'output' && lastChange > 0 && constr !== undefined) {
      const after = new constr({ ...def, checks: checks.slice(lastChange + 1) }) as WithJsonSchema
      const schema = after['~standard'].jsonSchema.output({
        target,
        libraryOptions: { unrepresentable: 'any' },
      })
      for (const keyword of checked) {
        delete jsonSchema[keyword]
        if (schema[keyword] !== undefined) jsonSchema[keyword] = schema[keyword]
      }
    }
    if (side === 'output' && lastChange >= 0 && def?.check === 'number_format') {
      for (const keyword of checked) delete jsonSchema[keyword]
      jsonSchema['type'] = 'number'
    }
    const flagged = [def, ...checks.map((check) => check._zod?.def)]
      .map((check) => check?.pattern)
      .filter((pattern) => pattern instanceof RegExp && isFlagged(pattern))
      .map((pattern) => (pattern as RegExp).source)
    if (flagged.length === 0) return
    const isOpen = (pattern: unknown): boolean => flagged.includes(pattern as string)
    if (isOpen(jsonSchema['pattern'])) delete jsonSchema['pattern']
    const { allOf } = jsonSchema
    if (Array.isArray(allOf))
      jsonSchema['allOf'] = allOf.filter((part: { pattern?: unknown }) => !isOpen(part.pattern))
  }
}

/** Whether a pattern accepts other texts than its source alone. */
export function isFlagged({ flags }: RegExp): boolean {
  return /[ims]/.test(flags)
}
