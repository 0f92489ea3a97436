import type { SchemaNode } from './document.ts'
import type { Part } from './shape.ts'
import { isAnything, list, typeName } from './wording.ts'

/** What a finding is about: see `Incompatibility`. */
export type FindingRule = 'required' | 'type' | 'values' | 'bounds' | 'format'

/**
 * What has to hold so that each value of a part fits a schema. All needs together are enough; a need that is not met
 * breaks the fit for sure only where it `decides`.
 */
export type Need =
  /** Not met, as can be seen at once. */
  | {
      readonly kind: 'unmet'
      readonly decides: boolean
      readonly step?: string
      readonly rule: FindingRule
      readonly detail: string
    }
  /** What is at `step` of the values has to fit. */
  | {
      readonly kind: 'fit'
      readonly decides: boolean
      readonly step?: string | undefined
      readonly parts: readonly Part[]
      readonly to: SchemaNode
      /** Where `to` is a definition that a reference leads to. */
      readonly isReference?: true
    }
  /** One of the alternatives has to be fitted, or each of the parts that it is `split` into has to fit `to`. */
  | {
      readonly kind: 'choice'
      readonly part: Part
      readonly to: SchemaNode
      readonly alternatives: readonly SchemaNode[]
      readonly split: () => readonly Part[] | undefined
      /** Whether it decides that no alternative is fitted: several may be, each by some of the values. */
      readonly decides: () => boolean
      /** What is said where none of the alternatives was meant. */
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

/** Finitely many values for what has more: sure where a value is found that is not listed. */
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
