import { spawnSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import { testBus, type PaymentBus } from '../support/bus.ts'
import { runCli, type CliResult, type Person } from '../support/cli.ts'
import { until, type TestDatabase } from '../support/database.ts'
import {
  createOperatorFolder,
  hostile,
  jsonLines,
  operate,
  subscribeOperated,
  type Operated,
  type Switch,
} from '../support/operated.ts'
import { shareTemplate } from '../support/shared-template.ts'

interface Stage {
  readonly database: TestDatabase
  readonly busy: Operated
  /** Not started. */
  readonly bus: PaymentBus
  readonly handlers: Switch
  readonly run: (args: readonly string[], person?: Person) => Promise<CliResult>
}

const createOperated = shareTemplate(operate)

/** A busy database, and a process of the service that may be started. */
async function createStage(): Promise<Stage> {
  const { database, content: busy } = await createOperated()
  const bus = testBus(database.url)
  const handlers = subscribeOperated(bus, { isBroken: false })
  const folder = await createOperatorFolder()
  const env = { DATABASE_URL: database.url, BOSSBUS_BY: 'ada', NO_COLOR: '1' }
  return { database, busy, bus, handlers, run: async (args, person) => runCli(folder, args, env, person) }
}

const untilDelivered = async (bus: PaymentBus, id: string, subscription: string): Promise<void> =>
  until('it is delivered', async () =>
    (await bus.deliveries(id)).some(
      (each) => each.subscription === subscription && each.state === 'delivered',
    ),
  )

describe('dead-letters redrive', () => {
  test('asks, redrives one by its business id, waits for it, and is in the audit', async () => {
    const { run, bus, busy } = await createStage()
    await bus.start()
    const declined = await run(['dead-letters', 'redrive', 'paid-1'], { columns: 100, answers: ['n'] })
    expect(declined).toMatchObject({ code: 1, out: '' })
    expect(declined.err).toContain('Redrive 1 dead letter of ledger? [y/N] ')
    expect(await bus.operations.list()).toEqual([])

    const done = await run(['dead-letters', 'redrive', 'paid-1', '--reason', hostile, '--wait'], {
      ...{ columns: 100, answers: ['y'] },
    })
    expect(done.err).toMatch(/Waiting for operation [\da-f-]{36}, which goes on/)
    expect(done.out).toMatch(/^redrive {2}done {2}[\da-f-]{36}\n/)
    expect(done.code).toBe(0)
    await untilDelivered(bus, busy.paid[1] ?? '', 'ledger')
    expect(await bus.audit.list({ action: 'deadLetters.redrive' })).toMatchObject([
      {
        ...{ by: 'ada', reason: hostile, subscription: 'ledger' },
        ...{ selection: { ids: [busy.paid[1]] }, outcome: { state: 'done', counts: { redriven: 1 } } },
      },
    ])
    // It is none any more, and the audit has it for whoever asks on the command line.
    expect(await run(['dead-letters', 'redrive', 'paid-1', '--yes'])).toMatchObject({ code: 1, out: '' })
    const [record] = jsonLines(await run(['audit', '--action', 'deadLetters.redrive', '--json']))
    expect(record).toMatchObject({ by: 'ada', reason: hostile })
  })

  test('redrives all of a group, after a dry run that changes nothing and counts the same', async () => {
    const { run, bus, busy } = await createStage()
    const [group] = jsonLines(await run(['dead-letters', 'groups', '--subscription', 'ledger', '--json']))
    const select = ['dead-letters', 'redrive', '--group', String(group?.['fingerprint'])]
    const dry = await run([...select, '--subscription', 'ledger', '--dry-run', '--json'])
    expect(jsonLines(dry)).toMatchObject([
      { count: 3, isCountPartial: false, subscriptions: [{ subscription: 'ledger', count: 3 }] },
    ])
    expect(await bus.operations.list()).toEqual([])
    expect(await run(select)).toMatchObject({ code: 2, err: expect.stringMatching(/use --yes/) as string })

    const started = await run([...select, '--subscription', 'ledger', '--yes', '--rate', '100', '--json'])
    expect(started.err).toMatch(
      /^No process of the bus runs now: .*\nNext: bossbus operations show [\da-f-]+$/,
    )
    expect(jsonLines(started)).toMatchObject([
      { kind: 'redrive', state: 'running', rate: 100, totalCount: 3 },
    ])
    await bus.start()
    for (const id of busy.paid) await untilDelivered(bus, id, 'ledger')
  })

  test('tells how far it is while somebody waits: a line a second in a pipe, a bar on a terminal', async () => {
    const { run, bus } = await createStage()
    await bus.start()
    const wait = ['--rate', '1', '--probe', '0', '--wait', '--yes']
    const piped = await run([
      'dead-letters',
      'redrive',
      'paid-0',
      'paid-1',
      '--subscription',
      'ledger',
      ...wait,
    ])
    expect(piped.code).toBe(0)
    expect(piped.err).toMatch(/^redrive: \d of 2, \d+\/s/m)
    let drawn = ''
    await run(['dead-letters', 'redrive', 'paid-2', ...wait], {
      columns: 90,
      onWrite: (_, text) => (drawn += text),
    })
    expect(drawn.replaceAll('\u001b[K', '')).toMatch(/\rredrive {2}[█░]{24} \d+ % {2}\d of 1/)
  })

  test('of a cause that is not mended stops after the first ones, says why and what comes next: exit code 1', async () => {
    const { run, bus, handlers } = await createStage()
    handlers.isBroken = true
    await bus.start()
    const stopped = await run([
      'dead-letters',
      'redrive',
      '--subscription',
      'ledger',
      '--probe',
      '1',
      '--wait',
      '--yes',
    ])
    expect(stopped.code).toBe(1)
    const [, id] = /operation ([\da-f-]{36})/.exec(stopped.err) ?? []
    expect(stopped.err).toMatch(
      /It is stopped: The first 1 of them failed again, in `ledger` with AccountMissing/,
    )
    expect(stopped.err).toContain(`Next: bossbus operations resume ${id}, or bossbus operations cancel ${id}`)
    expect(stopped.err).not.toMatch(/[\p{Cf}\r]/u)
    expect((await run(['operations', 'show', id ?? ''])).code).toBe(1)
    const status = await run(['status'])
    expect(status.out).toContain(`  bossbus operations show ${id}`)
    expect(status.out).toContain('  bossbus subscriptions resume search')

    handlers.isBroken = false
    expect(await run(['operations', 'resume', id ?? ''])).toMatchObject({ code: 0 })
    await until('it is done', async () => (await bus.operations.get(id ?? '')).state === 'done')
    expect(await run(['operations', 'resume', id ?? ''])).toMatchObject({ code: 1 })
    expect(await bus.audit.list({ action: 'operations.resume' })).toMatchObject([{ by: 'ada' }])
  })

  test.each<[readonly string[], RegExp]>([
    [['dead-letters', 'redrive'], /Say which dead letters/],
    [['dead-letters', 'redrive', 'a', '--all'], /either ids or --all/],
    [['dead-letters', 'redrive', 'a', 'b', '--edit'], /are about one event/],
    [['dead-letters', 'redrive', 'a', '--edit', '--payload', 'b'], /either --edit or --payload/],
    [['dead-letters', 'redrive', 'a', '--edit'], /--edit needs a person at a terminal/],
    [['dead-letters', 'redrive', 'a', '--payload', 'none.json'], /none\.json could not be read/],
    [['dead-letters', 'discard', '--all'], /Say why with --reason/],
    [['replay', 'a'], /Say who gets the events/],
    [['replay', '--subscription', 'a'], /Say which events/],
    [['keys', 'release', 'a'], /Say which key/],
    [['subscriptions', 'set', 'a'], /Say what to set/],
    [['subscriptions', 'set', 'a', '--paused'], /Say until when/],
    [['subscriptions', 'set', 'a', '--clear', '--paused'], /Give --clear alone/],
    [['subscriptions', 'set', 'a', '--paused', '--until', 'soon'], /--until to be a time like/],
    [['subscriptions', 'remove', 'a', '--discard', '--move-to', 'b'], /either --discard or --move-to/],
    [['archive', 'restore', 'a'], /Say where to with --into/],
    [['migrate', '--sql', '--dry-run'], /either --sql or --dry-run/],
  ])('of a wrong use says so without a database: %s', async (args, message) => {
    const { code, out, err } = await runCli(await createOperatorFolder(), args, {
      DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none',
    })
    expect({ code, out }).toEqual({ code: 2, out: '' })
    expect(err).toMatch(message)
  })
})

test('dead-letters discard takes a reason and the name of the subscription, and is told of afterwards', async () => {
  const { run, bus, busy } = await createStage()
  await bus.start()
  const select = ['dead-letters', 'discard', 'paid-0', 'paid-2', '--reason', 'paid by hand']
  expect(await run([...select, '--yes'])).toMatchObject({
    ...{ code: 2, err: expect.stringMatching(/use --confirm ledger/) as string },
  })
  expect(await run(select, { answers: ['mail'] })).toMatchObject({ code: 1 })
  expect(await bus.deadLetters.list({ subscription: 'ledger' })).toHaveLength(3)
  expect(await run([...select, '--wait', '--confirm', 'ledger'])).toMatchObject({ code: 0 })
  const [delivery] = (await bus.deliveries(busy.paid[0] ?? '')).filter(
    ({ subscription }) => subscription === 'ledger',
  )
  expect(delivery).toMatchObject({ state: 'discarded', discard: { by: 'ada', reason: 'paid by hand' } })
  expect(await bus.deadLetters.list({ subscription: 'ledger' })).toMatchObject([{ id: busy.paid[1] }])
})

test('replay counts by subscription, asks, delivers once more, and can be held and cancelled', async () => {
  const { run, bus, busy } = await createStage()
  const select = ['replay', '--subscription', 'mail', '--subscription', 'ledger', '--type', 'payment.*']
  const dry = await run([...select, '--dry-run', '--json'])
  expect(jsonLines(dry)).toMatchObject([
    {
      eventCount: 5,
      subscriptions: [
        { subscription: 'mail', hadCount: 3, deadCount: 0, filteredCount: 2 },
        { subscription: 'ledger', hadCount: 0, deadCount: 3, filteredCount: 2 },
      ],
    },
  ])
  expect((await run([...select, '--dry-run'], { columns: 120 })).out).toMatch(/^mail +3 +0 +0 +0 +2$/m)
  const asked = await run(select, { answers: [''] })
  expect(asked).toMatchObject({ code: 1 })
  expect(asked.err).toContain('Replay 5 events to mail, ledger: 3 deliveries? [y/N]')
  expect(await bus.operations.list()).toEqual([])

  const [held] = jsonLines(await run([...select, '--yes', '--json']))
  const id = String(held?.['id'])
  expect(jsonLines(await run(['operations', 'hold', id, '--dry-run', '--json']))).toMatchObject([
    { dryRun: true, changed: true, operation: { state: 'running' } },
  ])
  expect(await run(['operations', 'hold', id])).toMatchObject({ code: 0 })
  expect(await run(['operations', 'hold', id])).toMatchObject({ code: 1 })
  await bus.start()
  expect((await bus.operations.get(id)).state).toBe('paused')
  expect(await run(['operations', 'cancel', id])).toMatchObject({ code: 2 })
  const cancelled = await run(['operations', 'cancel', id, '--yes', '--json'])
  expect(jsonLines(cancelled)).toMatchObject([{ changed: true, operation: { id, state: 'cancelled' } }])

  const done = await run([
    'replay',
    busy.paid[0] ?? '',
    '--subscription',
    'mail',
    '--wait',
    '--yes',
    '--json',
  ])
  expect(done.code).toBe(0)
  expect(jsonLines(done)).toMatchObject([{ state: 'done', counts: { delivered: 1 }, by: 'ada' }])
  const actions = (await bus.audit.list()).map(({ action }) => action)
  expect(actions.slice(0, 4)).toEqual(['replay', 'operations.cancel', 'operations.pause', 'replay'])
  expect(jsonLines(await run(['operations', 'list', '--json', '--limit', '1']))).toHaveLength(1)
  expect((await run(['operations', 'list', '--limit', '1'])).err).toMatch(/^Next: .* --after [\da-f-]{36}$/)
})

test('a replay whose events become dead letters ends with exit code 1', async () => {
  const { run, bus, busy, handlers } = await createStage()
  await bus.start()
  await run(['dead-letters', 'redrive', busy.paid[0] ?? '', '--subscription', 'ledger', '--wait', '--yes'])
  await untilDelivered(bus, busy.paid[0] ?? '', 'ledger')
  handlers.isBroken = true
  const failed = await run(['replay', busy.paid[0] ?? '', '--subscription', 'ledger', '--wait', '--yes'])
  expect(failed.code).toBe(1)
  const [, command = ''] =
    /1 event became a dead letter\. Next: bossbus (.* --replay [\da-f-]{36})$/.exec(failed.err) ?? []
  expect(jsonLines(await run([...command.split(' '), '--json']))).toMatchObject([
    { id: busy.paid[0], subscription: 'ledger' },
  ])
})

test('keys release asks, delivers the failed event and those behind it, and names a key whatever it is called', async () => {
  const { run, bus, busy } = await createStage()
  await bus.start()
  const listed = await run(['keys', 'list', 'accounts'])
  const release = ['keys', 'release', 'accounts', '--tenant', hostile, '--key', hostile]
  // As a shell takes it apart.
  const [, next = ''] = /^Next: bossbus (.*)$/m.exec(listed.err) ?? []
  const { stdout } = spawnSync('bash', ['-c', String.raw`printf '%s\0' ${next}`], { encoding: 'utf8' })
  expect(stdout.split('\0').slice(0, -1)).toEqual(release)
  expect(await run(release)).toMatchObject({ code: 2 })
  expect(await bus.blockedKeys.list()).toHaveLength(1)
  expect(await run([...release, '--no-input'], { answers: ['y'] })).toMatchObject({ code: 2 })
  expect(await run(release, { answers: ['n'] })).toMatchObject({ code: 1, out: '' })
  expect(
    await bus.blockedKeys.list({ subscription: 'accounts', tenantId: hostile, orderingKey: hostile }),
  ).toHaveLength(1)
  expect(await bus.blockedKeys.list({ tenantId: 'acme' })).toEqual([])
  expect(await bus.blockedKeys.list({ orderingKey: 'another' })).toEqual([])
  expect(await run([...release, '--yes', '--json'])).toMatchObject({ code: 0, out: '{"released":true}' })
  await untilDelivered(bus, busy.blocked, 'accounts')
  await until('no key waits', async () => (await bus.blockedKeys.list()).length === 0)
  expect(await run([...release, '--yes', '--json'])).toMatchObject({ code: 1, out: '{"released":false}' })
  expect(await bus.audit.list({ action: 'blockedKeys.release' })).toMatchObject([
    { by: 'ada', subscription: 'accounts', selection: { orderingKey: hostile } },
  ])
})

test('subscriptions are paused, resumed and set for a time, in every process, and the audit says by whom', async () => {
  const { run, bus } = await createStage()
  await bus.start()
  const pause = ['subscriptions', 'pause', 'mail', '--reason', hostile]
  expect(await run([...pause, '--dry-run'])).toMatchObject({
    code: 0,
    out: 'mail is active: it would be paused.',
  })
  expect((await bus.subscriptions.get('mail')).state).toBe('active')
  expect(await run(pause)).toMatchObject({
    ...{ code: 0, out: 'Paused mail: its events wait.', err: 'Next: bossbus subscriptions resume mail' },
  })
  expect(await bus.subscriptions.get('mail')).toMatchObject({ pause: { by: 'ada', reason: hostile } })
  expect(jsonLines(await run([...pause, '--json']))).toMatchObject([
    { changed: false, subscription: { name: 'mail', state: 'paused' } },
  ])
  expect(jsonLines(await run(['subscriptions', 'resume', 'mail', '--json']))).toMatchObject([
    { changed: true, subscription: { name: 'mail', state: 'active' } },
  ])

  const set = [
    'subscriptions',
    'set',
    'mail',
    '--concurrency',
    '2',
    '--retry',
    '{"maxAttempts":3}',
    '--until',
    '2h',
  ]
  expect(await run([...set, '--dry-run'])).toMatchObject({ code: 0 })
  expect((await bus.subscriptions.get('mail')).overrides).toBeUndefined()
  const shown = await run(set)
  expect(shown.code).toBe(0)
  expect(shown.out).toMatch(/^Set in their place$/m)
  const { overrides } = await bus.subscriptions.get('mail')
  expect(overrides).toMatchObject({ concurrency: 2, retry: { maxAttempts: 3 }, by: 'ada' })
  expect(Math.abs((overrides?.expiresAt.getTime() ?? 0) - Date.now() - 7_200_000)).toBeLessThan(60_000)
  expect(
    await run(['subscriptions', 'set', 'mail', '--retry', '{"tries":3}', '--until', '2h']),
  ).toMatchObject({
    ...{ code: 2, err: expect.stringMatching(/BUS_INVALID_OPTION: Unknown option `tries`/) as string },
  })
  expect(await run(['subscriptions', 'set', 'mail', '--clear'])).toMatchObject({ code: 0 })
  expect((await bus.subscriptions.get('mail')).overrides).toBeUndefined()
  const actions = (await bus.audit.list({ subscription: 'mail' })).map(({ action, by }) => `${action} ${by}`)
  expect(actions).toEqual([
    'subscriptions.setOptions ada',
    'subscriptions.setOptions ada',
    'subscriptions.resume ada',
    'subscriptions.pause ada',
  ])
})

test('a subscription is renamed and removed once no process serves it', async () => {
  const { run, bus, database } = await createStage()
  const rename = ['subscriptions', 'rename', 'ledger', 'books']
  expect(await run([...rename, '--dry-run'])).toMatchObject({ code: 0 })
  expect(await run(['subscriptions', 'rename', 'ledger', 'mail', '--dry-run'])).toMatchObject({ code: 1 })
  expect(await run(rename)).toMatchObject({ code: 0, out: 'Renamed ledger to books.' })
  expect(await bus.deadLetters.list({ subscription: 'books' })).toHaveLength(3)

  const remove = ['subscriptions', 'remove', 'books']
  expect(await run([...remove, '--dry-run'])).toMatchObject({
    code: 1,
    out: expect.stringMatching(/^books has 0 waiting events and 3 dead letters, which prevent it/) as string,
  })
  expect(await run([...remove, '--confirm', 'books'])).toMatchObject({
    ...{ code: 2, err: expect.stringMatching(/^BUS_SUBSCRIPTION_NOT_EMPTY/) as string },
  })
  expect(await run([...remove, '--discard', '--yes'])).toMatchObject({ code: 2 })
  expect(await bus.subscriptions.get('books')).toMatchObject({ name: 'books' })
  const worker = testBus(database.url, { source: 'another-service' })
  await worker.start()
  const removed = await run([...remove, '--discard', '--confirm', 'books', '--wait', '--json'])
  expect(removed.code).toBe(0)
  expect(jsonLines(removed)).toMatchObject([{ kind: 'remove', state: 'done', by: 'ada' }])
  expect((await bus.subscriptions.list()).map(({ name }) => name)).toEqual(['accounts', 'mail', 'search'])
  expect((await bus.audit.list({ limit: 2 })).map(({ action, by }) => [action, by])).toEqual([
    ['subscriptions.remove', 'ada'],
    ['subscriptions.rename', 'ada'],
  ])
})

test('erase asks for the subject to be typed, and leaves nothing of it', async () => {
  const { run, bus, busy } = await createStage()
  const call = ['erase', 'nordwind', 'payments/42', '--reason', 'request 1207']
  expect(await run([...call, '--dry-run', '--json'])).toMatchObject({
    ...{ code: 0, out: '{"dryRun":true,"eventCount":3,"isPartial":false}' },
  })
  expect(await run([...call, '--yes'])).toMatchObject({ code: 2 })
  const declined = await run(call, { answers: ['y'] })
  expect(declined).toMatchObject({ code: 1, out: '' })
  expect(declined.err).toContain(
    'Erase 3 events about payments/42 of nordwind? This cannot be undone. Type payments/42 to go on: ',
  )
  expect((await bus.events.get(busy.paid[0] ?? ''))?.erasedAt).toBeUndefined()
  const erased = await run([...call, '--json'], { answers: ['payments/42'] })
  expect(erased.code).toBe(0)
  expect(jsonLines(erased)).toMatchObject([{ eventCount: 3, archiveFiles: [] }])
  expect((await bus.events.get(busy.paid[0] ?? ''))?.erasedAt).toBeInstanceOf(Date)
  expect(await bus.erasures.list()).toMatchObject([
    { subject: 'payments/42', by: 'ada', reason: 'request 1207' },
  ])
  expect(await bus.audit.list({ action: 'erase' })).toMatchObject([{ by: 'ada', outcome: { eventCount: 3 } }])
})
