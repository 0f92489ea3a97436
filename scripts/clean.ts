import { rmSync } from 'node:fs'

// Deletes build output, in the same way on every platform.
for (const folder of process.argv.slice(2)) rmSync(folder, { recursive: true, force: true })
