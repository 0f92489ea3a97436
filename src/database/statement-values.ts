/** The values of a statement that is put together, in the order of their placeholders. */
export interface StatementValues {
  /** Adds a value, and returns its placeholder. */
  readonly value: (value: unknown) => string
  readonly values: unknown[]
}

export function createValues(): StatementValues {
  const values: unknown[] = []
  return {
    values,
    value(each) {
      values.push(each)
      return `$${values.length}`
    },
  }
}
