import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { findIncompatibilities } from '../../../src/events/compatibility/schema-comparison.ts'
import { asRead, similarSchemas, smallDocument, smallValue } from '../../support/schema-arbitrary.ts'
import { seed } from '../../support/random.ts'
import type { JsonSchema } from '../../../src/events/contracts/schema-dialect.ts'

/** BOSSBUS_SEED=… repeats a run, BOSSBUS_RUNS=… makes it longer. */
const numRuns = Number(process.env['BOSSBUS_RUNS'] ?? 300)

const ajv = new Ajv2020({ strict: false, validateSchema: false, multipleOfPrecision: 6, logger: false })
;(addFormats as unknown as (ajv: Ajv2020) => void)(ajv)

/** Undefined for a schema that ajv does not take. */
function validator(schema: JsonSchema): ValidateFunction | undefined {
  try {
    return ajv.compile(schema)
  } catch {
    return undefined
  }
}

const values = fc.sample(smallValue, { seed, numRuns: 500 })

test.each([
  ['a schema and one that differs a little', similarSchemas],
  ['any two schemas', fc.tuple(smallDocument, smallDocument)],
] as const)(
  'of %s, no value of the first is refused by the second where it is said to fit',
  (_what, pairs) => {
    let [fittingCount, valueCount] = [0, 0]
    fc.assert(
      fc.property(pairs, ([from, to]) => {
        if (findIncompatibilities(from, to).length > 0) return
        const [written, read, strict] = [validator(from), validator(asRead(to)), validator(to)]
        if (written === undefined || read === undefined || strict === undefined) return
        fittingCount += 1
        for (const value of values) {
          if (!written(value)) continue
          valueCount += 1
          // What is left alone below `oneOf` may make two alternatives fit.
          if (!read(value) && !strict(value))
            throw new Error(
              `${JSON.stringify(from)} is said to fit ${JSON.stringify(to)}, but ${JSON.stringify(value)} does not`,
            )
        }
      }),
      { seed, numRuns },
    )
    console.log(`seed ${seed}: ${fittingCount} of ${numRuns} pairs fit, ${valueCount} values tried`)
    expect(fittingCount).toBeGreaterThan(0)
  },
)
