import type { SchemaNode } from './document.ts'
import type { Part } from './shape.ts'
import { isAnything, list, typeName } from './wording.ts'

/** What a finding is about: see `Incompatibility`. */
export type FindingRule = 'required' | 'type' | 'values' | 'bounds' | 'format'

/**
 * What must hold so that every value of a part fits a schema. All needs together are sufficient; an unmet need breaks
 * the fit with certainty only if it `decides`.
 */
export type Need =
  /** Visibly unmet. */
  | {
      readonly kind: 'unmet'
      readonly decides: boolean
      readonly step?: string
      readonly rule: FindingRule
      readonly detail: string
    }
  /** The values at `step` must fit. */
  | {
      readonly kind: 'fit'
      readonly decides: boolean
      readonly step?: string | undefined
      readonly parts: readonly Part[]
      readonly to: SchemaNode
      /** Set if `to` is a definition that a reference leads to. */
      readonly isReference?: true
    }
  /** One of the alternatives must fit, or each of the parts that it is `split` into must fit `to`. */
  | {
      readonly kind: 'choice'
      readonly part: Part
      readonly to: SchemaNode
      readonly alternatives: readonly SchemaNode[]
      readonly split: () => readonly Part[] | undefined
      /** Whether an unmet need proves that no alternative fits: several alternatives may each fit some of the values. */
      readonly decides: () => boolean
      /** The finding to report if none of the alternatives was meant. */
      readonly otherwise: () => Extract<Need, { kind: 'unmet' }>
    }

export function unmet(
  rule: FindingRule,
  detail: string,
  more: { readonly decides?: boolean; readonly step?: string } = {},
): Extract<Need, { kind: 'unmet' }> {
  return {
    kind: 'unmet',
    decides: more.decides ?? true,
    rule,
    detail,
    ...(more.step === undefined ? {} : { step: more.step }),
  }
}

/** A finite list for a part with more values: certain if a value is found that the list lacks. */
export function anyOfList(
  part: Part,
  listed: readonly unknown[],
  decides: boolean,
): Extract<Need, { kind: 'unmet' }> {
  const given = isAnything(part.shape) ? 'may be anything' : `was any ${typeName(part)}`
  return unmet('values', `${given}, only ${list(listed)} ${listed.length === 1 ? 'fits' : 'fit'}`, {
    decides,
  })
}
