/**
 * Builds the library and packs it as npm would publish it, once for all that look at the package: `node scripts/pack.ts FILE`.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'

const [, , given] = process.argv
if (given === undefined) throw new Error('Expected a file to write')
const file = resolve(given)
mkdirSync(dirname(file), { recursive: true })
// On the same disk, so that it can be renamed.
const folder = mkdtempSync(`${file}-`)
try {
  const said = execFileSync('npm', ['pack', '--json', '--pack-destination', folder], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [packed] = JSON.parse(said) as { readonly filename: string }[]
  renameSync(join(folder, packed?.filename ?? ''), file)
} finally {
  rmSync(folder, { recursive: true, force: true })
}
