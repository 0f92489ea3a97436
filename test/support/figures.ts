import { appendFileSync } from 'node:fs'
import { inject } from 'vitest'
import { isFullForm } from './form.ts'

/** Writes a row of the table that `npm run test:chaos` prints at its end. The short forms have no figures. */
export function recordFigure(fault: string, figure: string): void {
  if (isFullForm) appendFileSync(inject('figuresFile'), `${JSON.stringify({ fault, figure })}\n`)
}
