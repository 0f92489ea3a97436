import type pg from 'pg'
import { expect, test } from 'vitest'
import { planJobs } from '../../../src/delivery/routing/plan-jobs.ts'
import type { RegisteredSubscription } from '../../../src/delivery/registry/registry.ts'
import type { ClaimedEvent } from '../../../src/outbox/relay/claim.ts'
import { subscriptionWith } from '../../support/claims.ts'

const events = (tenantId: string, count: number, rest: Partial<ClaimedEvent> = {}): ClaimedEvent[] =>
  Array.from({ length: count }, (_, n) => ({
    ...{ id: `${tenantId}${n}`, tenantId, type: 'note', payloadBytes: 10 },
    ...{ orderingKey: undefined, wasScheduled: false, ...rest },
  }))

/** What waits in a queue already, by finishTag: of its first job, of the one being worked on, and of the last of some keys. */
interface Waiting {
  readonly front?: number
  readonly served?: number
  readonly last?: Readonly<Record<string, number>>
}

interface Placed {
  readonly key: string
  readonly finishTag: number
  readonly eventCount: number
  /** Whose events are in the batch, the first of each tenant. */
  readonly tenants: string
}

/** Places a claim in a queue. The rows are those that the statement about the queue would have. */
async function plan(
  claimed: readonly ClaimedEvent[],
  { front, served, last = {} }: Waiting = {},
  { batchSize = 100, declarations }: { batchSize?: number; declarations?: readonly number[] } = {},
): Promise<readonly Placed[]> {
  const subscription: RegisteredSubscription = { id: 1, declarations: [], ...subscriptionWith({ batchSize }) }
  const rows = (asked: readonly string[]): unknown[] => [
    { queue: 0, key: null, finishTag: front ?? null },
    { queue: 0, key: '!', finishTag: served ?? null },
    ...asked.map((key) => ({ queue: 0, key, finishTag: last[key] ?? null })),
  ]
  const client = {
    query: async (_text: string, [keys]: readonly string[]) => ({
      rows: rows(JSON.parse(keys ?? '[]') as string[]),
    }),
  } as unknown as pg.ClientBase
  const [jobs = []] = await planJobs(client, { bossSchema: 'pgboss' }, [
    { subscription, events: claimed, declarations },
  ])
  return jobs.map(({ singletonKey = '', priority = 0, data }) => {
    const ids = data?.eventIds ?? []
    const tenants = [...new Set(ids.map((id) => id.replace(/\d+$/, '')))].join()
    return { key: singletonKey, finishTag: -priority, eventCount: ids.length, tenants }
  })
}

/** Tenants in the order in which pg-boss takes the jobs. */
const orderOf = (jobs: readonly Placed[]): readonly string[] =>
  jobs.toSorted((x, y) => x.finishTag - y.finishTag).map(({ tenants }) => tenants)

test('where nothing waits, few events of many tenants are one job', async () => {
  const claimed = ['a', 'b', 'c'].flatMap((tenant) => events(tenant, 3))
  expect(await plan(claimed)).toEqual([{ key: '*', finishTag: 9, eventCount: 9, tenants: 'a,b,c' }])
  // Where something waits, the same events have their tenants' places.
  expect((await plan(claimed, { front: 50 })).map(({ key }) => key)).toEqual(['=a', '=b', '=c'])
})

test('a tenant with a quarter of a claim has batches of its own; the others share theirs', async () => {
  const jobs = await plan([
    ...events('big', 300),
    ...['a', 'b', 'c', 'd'].flatMap((tenant) => events(tenant, 25)),
  ])
  expect(jobs).toEqual([
    { key: '=big', finishTag: 100, eventCount: 100, tenants: 'big' },
    { key: '=big', finishTag: 200, eventCount: 100, tenants: 'big' },
    { key: '=big', finishTag: 300, eventCount: 100, tenants: 'big' },
    { key: '*', finishTag: 25, eventCount: 100, tenants: 'a,b,c,d' },
  ])
})

test('the few events of one tenant are in no batch of a large one that came with the same claim', async () => {
  const jobs = await plan([...events('big', 950), ...events('tiny', 10)])
  expect(jobs.filter(({ tenants }) => tenants.includes('tiny'))).toEqual([
    { key: '*', finishTag: 10, eventCount: 10, tenants: 'tiny' },
  ])
  expect(orderOf(jobs)[0]).toBe('tiny')
  expect(jobs.reduce((sum, { eventCount }) => sum + eventCount, 0)).toBe(960)
})

test('what is shared moves on by the events of each tenant, so that no large one is starved', async () => {
  const many = Array.from({ length: 50 }, (_, n) => events(`t${n}.`, 2)).flat()
  const [shared] = await plan(many, { front: 0 })
  expect(shared).toMatchObject({ key: '*', finishTag: 2, eventCount: 100 })
})

test('a tenant that comes now stands behind the front, and not behind the backlog of another', async () => {
  const waiting = { front: 1000, last: { '=big': 50_000 } }
  expect(await plan(events('small', 10), waiting)).toEqual([
    { key: '=small', finishTag: 1010, eventCount: 10, tenants: 'small' },
  ])
  expect(await plan(events('big', 10), waiting)).toEqual([
    { key: '=big', finishTag: 50_010, eventCount: 10, tenants: 'big' },
  ])
})

test('two tenants with a backlog take turns', async () => {
  const one = await plan(events('a', 500))
  const two = await plan(events('b', 500), { front: 100, last: { '=a': 500 } })
  expect(orderOf([...one, ...two]).slice(1)).toEqual(['a', 'b', 'a', 'b', 'a', 'b', 'a', 'b', 'b'])
})

test('what comes while a job runs stands behind that job, and not behind the front', async () => {
  expect(await plan(events('a', 10), { served: 400 })).toMatchObject([{ finishTag: 410, key: '*' }])
  expect(await plan(events('a', 200), { served: 400 })).toMatchObject([
    { finishTag: 500 },
    { finishTag: 600 },
  ])
  expect(await plan(events('a', 200), { front: 900, served: 400 })).toMatchObject([
    { finishTag: 500 },
    { finishTag: 600 },
  ])
  expect(await plan(events('a', 200), { front: 300, served: 400 })).toMatchObject([
    { finishTag: 400 },
    { finishTag: 500 },
  ])
})

test('events that waited for their time stand in a line of their own', async () => {
  const claimed = [
    ...events('big', 300, { wasScheduled: true }),
    ...['a', 'b'].flatMap((tenant) => events(tenant, 20, { wasScheduled: true })),
  ]
  const waiting = { front: 10, last: { '=big': 700, '*': 700, '@big': 40 } }
  expect(await plan(claimed, waiting)).toEqual([
    ...[140, 240, 340].map((at) => ({ key: '@big', finishTag: at, eventCount: 100, tenants: 'big' })),
    { key: '+', finishTag: 30, eventCount: 40, tenants: 'a,b' },
  ])
})

test('batches have as many events as the subscription says, and about a megabyte', async () => {
  expect((await plan(events('a', 25), { front: 0 }, { batchSize: 10 })).map((job) => job.eventCount)).toEqual(
    [10, 10, 5],
  )
  const large = events('a', 5, { payloadBytes: 400_000 })
  expect((await plan(large, { front: 0 })).map((job) => job.eventCount)).toEqual([2, 2, 1])
})

test("places end where pg-boss's priority does", async () => {
  const jobs = await plan(events('a', 300), { front: 1_999_999_950 })
  expect(jobs.map((job) => job.finishTag)).toEqual([2_000_000_000, 2_000_000_000, 2_000_000_000])
})

test('each subscription has its own line', async () => {
  const subscriptionOf = (name: string): RegisteredSubscription => ({
    ...{ id: 1, declarations: [] },
    ...subscriptionWith({ name }),
  })
  const client = {
    query: async () => ({
      rows: [
        { queue: 0, key: null, finishTag: 100 },
        { queue: 1, key: null, finishTag: 7000 },
        { queue: 1, key: '=a', finishTag: 9000 },
      ],
    }),
  } as unknown as pg.ClientBase
  const planned = await planJobs(client, { bossSchema: 'pgboss' }, [
    { subscription: subscriptionOf('first'), events: events('a', 10) },
    { subscription: subscriptionOf('second'), events: events('a', 10), declarations: [4] },
  ])
  expect(planned.map((jobs) => jobs.map(({ priority }) => priority))).toEqual([[-110], [-9010]])
  expect(planned.map((jobs) => jobs.map(({ data }) => data?.declarations))).toEqual([[undefined], [[4]]])
})
