import { createHash } from 'node:crypto'
import { expect, it } from 'vitest'
import { Checker, type Verdict } from '../../faults/checker.js'
import { knownBytes } from '../../faults/content.js'
import type { Copy } from '../../faults/copies.js'
import type { Outcome } from '../../faults/messages.js'
import { contentLabel, lifeOf, metadataOf, planOperation } from '../../faults/plan.js'

const SEED = 1
/** Two operations that store some bytes as they are. */
const [FIRST = 0, SECOND = 0] = Array.from({ length: 100 }, (_, i) => i).filter((number) => {
  const { shape, sizeBytes } = planOperation(SEED, number)
  return shape !== 'directory' && sizeBytes > 10
})
const keyOf = (number: number): string => `task/20260101-00000${number % 10}-name`
const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

function copyOf(number: number, changes: Partial<Copy> = {}): Copy {
  const operation = planOperation(SEED, number)
  const bytes = knownBytes(contentLabel(SEED, number, 0), operation.sizeBytes)
  const metadata = metadataOf(operation, SEED, 0)
  const whole = {
    place: 's3',
    key: keyOf(number),
    bytes,
    claimedSha256: digest(bytes),
    metadata,
    ...changes,
  } as const
  return { ...whole, sha256: digest(whole.bytes) }
}

function acknowledged(number: number, tiers: readonly ('s3' | 'http')[] = ['s3']): Outcome {
  const { bytes, key } = copyOf(number)
  const result = { key, sha256: digest(bytes), size: bytes.length, stored: tiers.map((tier) => ({ tier })) }
  return {
    taskId: 'task',
    operation: number,
    attempt: 0,
    via: 'node',
    fault: 'none',
    status: 'acknowledged',
    result,
  }
}

async function judge(
  outcomes: readonly Outcome[],
  copies: readonly Copy[],
  more: { readonly vanished?: string; readonly manifest?: object; readonly output?: string } = {},
): Promise<Record<keyof Verdict, number>> {
  const checker = new Checker({
    seed: SEED,
    outcomes,
    receipts: new Map(),
    manifests: new Map(more.manifest === undefined ? [] : [['task', JSON.stringify(more.manifest)]]),
    outputs: new Set(more.output === undefined ? [] : [more.output]),
    vanished: new Set(more.vanished === undefined ? [] : [more.vanished]),
  })
  for (const copy of copies) await checker.visit(copy)
  const entries = Object.entries(checker.conclude()) as [keyof Verdict, string[] | number][]
  return Object.fromEntries(
    entries.map(([name, found]) => [name, typeof found === 'number' ? found : found.length]),
  ) as Record<keyof Verdict, number>
}

const CLEAN = {
  lost: 0,
  corrupt: 0,
  duplicated: 0,
  contradictions: 0,
  mistold: 0,
  goneWithSandbox: 0,
  unacknowledged: 0,
}

it('finds nothing wrong where everything is as it was acknowledged', async () => {
  const outcomes = [acknowledged(FIRST), acknowledged(SECOND, ['http'])]
  const copies = [copyOf(FIRST), copyOf(SECOND, { place: 'http' })]
  expect(await judge(outcomes, copies)).toEqual({ acknowledged: 2, ...CLEAN })
})

it('finds what was lost, and tells it from what went with a sandbox that alone had it', async () => {
  expect(await judge([acknowledged(FIRST)], [])).toMatchObject({ lost: 1 })
  expect(await judge([acknowledged(FIRST)], [], { vanished: lifeOf('task') })).toMatchObject({ lost: 1 })
  expect(await judge([acknowledged(FIRST, [])], [])).toMatchObject({ lost: 1 })
  const gone = await judge([acknowledged(FIRST, [])], [], { vanished: lifeOf('task') })
  expect(gone).toEqual({ acknowledged: 1, ...CLEAN, goneWithSandbox: 1 })
  expect(await judge([], [], { output: lifeOf('task') })).toMatchObject({ lost: 1 })
})

it('finds bytes and metadata that are not what was handed over', async () => {
  const { bytes } = copyOf(FIRST)
  const short = bytes.subarray(1)
  const outcomes = [acknowledged(FIRST)]
  for (const changes of [
    { bytes: short },
    { bytes: short, claimedSha256: digest(short) },
    { claimedSha256: digest(short) },
    { metadata: { operation: FIRST, attempt: 0, life: 1 } },
    { metadata: {} },
  ]) {
    expect(
      (await judge(outcomes, [copyOf(FIRST, changes)])).corrupt,
      JSON.stringify(changes),
    ).toBeGreaterThan(0)
  }
})

it('finds a result that was overwritten, and one under two keys', async () => {
  const overwritten = await judge([acknowledged(FIRST)], [copyOf(SECOND, { key: keyOf(FIRST) })])
  expect(overwritten.corrupt).toBe(1)
  const twice = await judge(
    [acknowledged(FIRST)],
    [copyOf(FIRST), copyOf(FIRST, { key: `${keyOf(FIRST)}2` })],
  )
  expect(twice).toMatchObject({ duplicated: 1, unacknowledged: 1 })
})

it('finds what was said of a place and is not so', async () => {
  expect(await judge([acknowledged(FIRST)], [copyOf(FIRST, { place: 'http' })])).toMatchObject({
    lost: 0,
    contradictions: 1,
  })
  const manifest = { results: [{ key: 'task/20260101-000000-other', sha256: '' }] }
  expect(await judge([], [], { manifest })).toMatchObject({ contradictions: 1 })
})

it('finds what a manifest says of the wrong sandbox, of none, twice, or not', async () => {
  const key = keyOf(FIRST)
  const mistold = async (keysOf: readonly (readonly [number, readonly string[]])[], sandbox_id = 'box') => {
    const attempts = keysOf.map(([attempt, keys]) => ({
      attempt,
      outcome: 'lost',
      exit: null,
      sandbox_id,
      keys,
    }))
    const manifest = { outcome: 'lost', results: [], attempts }
    return (await judge([acknowledged(FIRST)], [copyOf(FIRST)], { manifest })).mistold
  }
  expect(await mistold([[1, [key]]])).toBe(0)
  expect(await mistold([[2, []]])).toBe(0)
  expect(await mistold([[1, []]])).toBe(1)
  const other = [1, []] as const
  expect(await mistold([other, [2, [key]]])).toBe(1)
  expect(await mistold([[1, [key]], other])).toBe(1)
  // Nor may another be told to have left it where nothing is told of its own sandbox.
  expect(await mistold([[2, [key]]])).toBe(1)
  expect(await mistold([[1, [key]]], '')).toBe(0)
  const certificates = [1, 2].map((n) => `task/20260101-00000${n}-death-certificate.json`)
  expect(await mistold([[1, [key, ...certificates]]])).toBe(1)
  expect(
    await mistold(
      [
        [1, [key]],
        [2, certificates.slice(1)],
      ],
      '',
    ),
  ).toBe(1)
  const wrong = { outcome: 'succeeded', results: [], attempts: [{ attempt: 1, outcome: 'lost', keys: [] }] }
  expect((await judge([], [], { manifest: wrong })).mistold).toBe(1)
})
