import { expect, test } from 'vitest'
import { endsTransaction } from '../../../src/delivery/exactly-once/handler-transaction.ts'

test.each([
  'commit',
  'COMMIT;',
  ' \n end',
  'End Transaction',
  'abort',
  'rollback',
  'Rollback Work',
  'rollback and chain',
  'ROLLBACK PREPARED',
  "prepare transaction 'x'",
  '-- why\ncommit',
  '/* a */ /* b\n */ ; commit',
  'commit prepared',
])('%j is taken for the end of a transaction', (text) => {
  expect(endsTransaction(text)).toBe(true)
})

test.each([
  'rollback to savepoint sp1',
  'ROLLBACK  TO sp1',
  'rollback work to sp1',
  'rollback transaction to savepoint sp1',
  'savepoint sp1',
  'release savepoint sp1',
  'select 1 -- commit',
  'insert into ending values (1)',
  'prepare statement as select 1',
  'ending',
  'committed',
  '',
])('%j is not', (text) => {
  expect(endsTransaction(text)).toBe(false)
})
