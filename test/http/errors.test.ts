import { expect, test } from 'vitest'
import { ConfigurationError, DatabaseError, HttpError, StateError } from '../../src/foundation/errors.ts'
import { toErrorAnswer } from '../../src/http/errors.ts'

const unsaid = 'The request failed; the log says why'

test.each([
  ['BUS_DATABASE_UNAVAILABLE', 'No connection: connect ECONNREFUSED 10.1.2.3:5432', true, 503],
  ['BUS_DATABASE_UNAVAILABLE', 'password authentication failed for user "payments"', true, 503],
  ['BUS_DATABASE_ERROR', 'deadlock detected', true, 503],
  [
    'BUS_DATABASE_ERROR',
    'The database refused a statement: relation "secrets" has no column "x"',
    false,
    500,
  ],
  ['BUS_PERMISSION_DENIED', 'permission denied for table secrets', false, 500],
  ['BUS_ROLE_MISSING', 'grant bus_tenant to "payments"', false, 500],
] as const)('what the database says is in the log alone: %s, %s', (code, message, retryable, statusCode) => {
  expect(toErrorAnswer(new DatabaseError(code, message, { retryable }))).toEqual({
    ...{ statusCode, code, message: unsaid, option: undefined },
  })
})

test('what is wrong with a request is said, and so is what a person can do about it', () => {
  expect(toErrorAnswer(new ConfigurationError('BUS_INVALID_OPTION', 'Expected x', { option: 'x' }))).toEqual({
    ...{ statusCode: 400, code: 'BUS_INVALID_OPTION', message: 'Expected x', option: 'x' },
  })
  expect(toErrorAnswer(new StateError('No process takes the canary'))).toMatchObject({
    ...{ statusCode: 503, message: 'No process takes the canary' },
  })
  expect(toErrorAnswer(new HttpError(403, 'BUS_HTTP_FORBIDDEN', 'Not yours'))).toMatchObject({
    message: 'Not yours',
  })
  expect(toErrorAnswer(new HttpError(500, 'BUS_HTTP_ERROR', 'of the app'))).toMatchObject({ message: unsaid })
})

test.each([
  undefined,
  null,
  'a text',
  7,
  {},
  { statusCode: 200 },
  { statusCode: '400', message: 'x' },
  { statusCode: 4000 },
])('whatever is thrown is an error of the server: %j', (thrown) => {
  expect(toErrorAnswer(thrown)).toEqual({ statusCode: 500, code: 'BUS_HTTP_ERROR', message: unsaid })
})
