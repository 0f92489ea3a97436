import type { Bus } from '../../bus-interface.ts'

/** What a tool works with. */
export interface ToolContext {
  readonly bus: Bus
  /** Who is recorded in the audit. */
  readonly by: string
}

/** The schema of an argument, in JSON Schema. */
interface Property {
  readonly type: 'string' | 'integer' | 'boolean' | 'object' | 'array'
  readonly description: string
  readonly items?: { readonly type: 'string' }
  readonly minItems?: number
  readonly enum?: readonly string[]
  readonly minimum?: number
  readonly maximum?: number
  readonly minLength?: number
  readonly maxLength?: number
  readonly format?: string
}

export type Properties = Readonly<Record<string, Property>>

/** A tool for a model. */
export interface Tool {
  readonly name: string
  readonly description: string
  readonly properties: Properties
  readonly required: readonly string[]
  /** Undefined: it only reads. */
  readonly action: string | undefined
  readonly isDestructive: boolean
  readonly run: (context: ToolContext, given: Readonly<Record<string, unknown>>) => Promise<object>
}

const maxTextLength = 2000

export function textProperty(description: string, choices?: readonly string[]): Property {
  return {
    ...{ type: 'string', description, maxLength: maxTextLength },
    ...(choices === undefined ? {} : { enum: choices }),
  }
}

/** At least one text: none is not the same as no such argument. */
export function textsProperty(description: string): Property {
  return { type: 'array', items: { type: 'string' }, minItems: 1, description }
}

export function timeProperty(description: string): Property {
  return { type: 'string', description: `${description}, in ISO 8601`, maxLength: 40 }
}

export function limitProperty(maximum: number, usual: number): Property {
  return { type: 'integer', description: `How many at most (${usual})`, minimum: 1, maximum }
}

/** A tool that only reads. */
export function readTool(
  name: string,
  description: string,
  properties: Properties,
  run: Tool['run'],
  required: readonly string[] = [],
): Tool {
  return { ...{ name, description, properties, required, run }, action: undefined, isDestructive: false }
}
