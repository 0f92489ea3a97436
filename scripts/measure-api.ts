/**
 * Prints the table of docs/comparison.md.
 *
 *   node scripts/measure-api.ts
 */
import { comparisonTable } from './api-comparison.ts'

console.log(comparisonTable())
