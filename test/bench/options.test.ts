import { describe, expect, test } from 'vitest'
import { parseOptions, UsageError } from '../../scripts/bench/options.ts'

const known = [
  { letter: 'a', name: 'throughput' },
  { letter: 'c', name: 'latency' },
]

describe('the command line of the benchmark', () => {
  test('asks for every workload in three rounds when it is empty', () => {
    expect(parseOptions([], known)).toEqual({
      quick: false,
      rounds: 3,
      only: ['throughput', 'latency'],
      eventCount: undefined,
      subscriberCounts: undefined,
      payloadBytes: undefined,
      format: 'text',
      document: false,
    })
  })

  test('takes sizes, lists, and workloads by name or letter, in the order of the program', () => {
    const args = [
      '--only',
      'latency,a',
      '--events',
      '100',
      '--subscribers',
      '1, 3',
      '--payload',
      '200',
      '--json',
    ]
    expect(parseOptions(args, known)).toMatchObject({
      only: ['throughput', 'latency'],
      eventCount: 100,
      subscriberCounts: [1, 3],
      payloadBytes: [200],
      format: 'json',
    })
  })

  test('runs one round when it is to be quick, unless told otherwise', () => {
    expect(parseOptions(['--quick'], known)).toMatchObject({ quick: true, rounds: 1 })
    expect(parseOptions(['--quick', '--rounds', '2'], known)).toMatchObject({ quick: true, rounds: 2 })
  })

  test('asks for help', () => {
    expect(parseOptions(['--help'], known)).toBe('help')
  })

  test.each([
    [['--only', 'throughput,speed'], 'Unknown workload `speed` in --only. Known are: throughput, latency'],
    [['--only', ''], 'Unknown workload `` in --only. Known are: throughput, latency'],
    [['--rounds', '0'], 'Expected --rounds to be a whole number from 1 to 100, got `0`'],
    [['--events', '1e3'], 'Expected --events to be a whole number from 1 to 10000000, got `1e3`'],
    [['--subscribers', '1,,3'], 'Expected --subscribers to be a whole number from 1 to 100, got ``'],
    [['--payload', '-1'], "Option '--payload' argument is ambiguous. Try --help"],
    [['--fast'], "Unknown option '--fast'. Try --help"],
    [['throughput'], "Unexpected argument 'throughput'. Try --help"],
    [['--json', '--markdown'], 'Expected one of --json and --markdown, got both'],
    [['--document', '--quick'], 'Expected --document with a full run, got --quick or --only'],
  ])('refuses %j in one line', (args, message) => {
    expect(() => parseOptions(args, known)).toThrow(new UsageError(message))
    expect(message).not.toContain('\n')
  })
})
