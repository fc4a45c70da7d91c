import { createHash } from 'node:crypto'
import { buffer } from 'node:stream/consumers'
import { gzipSync } from 'node:zlib'
import { pack } from 'tar-stream'
import { expect, it } from 'vitest'
import { Checker, type Verdict } from '../../faults/checker.js'
import { knownBytes } from '../../faults/content.js'
import type { Copy } from '../../faults/copies.js'
import type { LabReceipt, Outcome } from '../../faults/messages.js'
import {
  contentLabel,
  lifeOf,
  metadataOf,
  planOperation,
  planWorker,
  taskIdOf,
  UNDECLARED_FILE,
  undeclaredBytes,
  type WorkerKind,
} from '../../faults/plan.js'

const SEED = 1
/** Two operations that store some bytes as they are. */
const [FIRST = 0, SECOND = 0] = Array.from({ length: 100 }, (_, i) => i).filter((number) => {
  const { shape, sizeBytes } = planOperation(SEED, number)
  return shape !== 'directory' && sizeBytes > 10
})
const workers = Array.from({ length: 200 }, (_, index) => planWorker(SEED, index))
const taskOf = (kind: WorkerKind): string =>
  taskIdOf(SEED, workers.find((plan) => plan.kind === kind && !plan.leavesUndeclared)?.index ?? -1)
const TASK = taskOf('grant')
const keyOf = (number: number): string => `${TASK}/20260101-00000${number % 10}-name`
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
    taskId: TASK,
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
  more: {
    readonly vanished?: string
    readonly manifest?: object
    /** @default TASK */
    readonly manifestOf?: string
    readonly output?: string
    readonly forced?: string
    readonly receipt?: LabReceipt
  } = {},
): Promise<Record<keyof Verdict, number>> {
  const checker = new Checker({
    seed: SEED,
    outcomes,
    receipts: new Map(more.receipt === undefined ? [] : [[TASK, more.receipt]]),
    manifests: new Map(
      more.manifest === undefined ? [] : [[more.manifestOf ?? TASK, JSON.stringify(more.manifest)]],
    ),
    outputs: new Set(more.output === undefined ? [] : [more.output]),
    vanished: new Set(more.vanished === undefined ? [] : [more.vanished]),
    forced: new Set(more.forced === undefined ? [] : [more.forced]),
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
  givenUp: 0,
  unacknowledged: 0,
  cutShort: 0,
}

it('finds nothing wrong where everything is as it was acknowledged', async () => {
  const outcomes = [acknowledged(FIRST), acknowledged(SECOND, ['http'])]
  const copies = [copyOf(FIRST), copyOf(SECOND, { place: 'http' })]
  expect(await judge(outcomes, copies)).toEqual({ acknowledged: 2, ...CLEAN })
})

it('finds what was lost, and tells it from what went with a sandbox that alone had it', async () => {
  expect(await judge([acknowledged(FIRST)], [])).toMatchObject({ lost: 1 })
  expect(await judge([acknowledged(FIRST)], [], { vanished: lifeOf(TASK) })).toMatchObject({ lost: 1 })
  expect(await judge([acknowledged(FIRST, [])], [])).toMatchObject({ lost: 1 })
  const gone = await judge([acknowledged(FIRST, [])], [], { vanished: lifeOf(TASK) })
  expect(gone).toEqual({ acknowledged: 1, ...CLEAN, goneWithSandbox: 1 })
  expect(await judge([], [], { output: lifeOf(TASK) })).toMatchObject({ lost: 1 })
})

it('lets nothing go with a sandbox but what lay in it alone', async () => {
  for (const [kind, isLost] of [
    ['grant', 0],
    ['volume', 1],
    ['remote', 1],
    ['keys', 1],
  ] as const) {
    const taskId = taskOf(kind)
    const verdict = await judge([{ ...acknowledged(FIRST, []), taskId }], [], { vanished: lifeOf(taskId) })
    expect(verdict, kind).toMatchObject({ lost: isLost, goneWithSandbox: 1 - isLost })
  }
})

it('takes for given up only what the receipt of a forced end names', async () => {
  const receipt: LabReceipt = {
    life: 1,
    outcome: 'killed',
    exitCode: null,
    sealed: false,
    cause: 'stopped',
    results: [],
    undelivered: [{ key: keyOf(FIRST), reason: 'its sandbox is gone' }],
    missingOutputs: [],
    failedOutputs: [],
  }
  const outcomes = [acknowledged(FIRST, [])]
  const forced = lifeOf(TASK)
  expect(await judge(outcomes, [], { receipt, forced })).toMatchObject({ lost: 0, givenUp: 1 })
  expect(await judge(outcomes, [], { receipt })).toMatchObject({ lost: 1, givenUp: 0 })
  const silent = { ...receipt, undelivered: [] }
  expect(await judge(outcomes, [], { receipt: silent, forced })).toMatchObject({ lost: 1, givenUp: 0 })
  const remote = [acknowledged(FIRST)]
  expect(await judge(remote, [], { receipt, forced })).toMatchObject({ lost: 1, givenUp: 0 })
})

it('finds undeclared outputs that were not kept, or are not as they were left', async () => {
  const plan = workers.find(({ leavesUndeclared }) => leavesUndeclared)
  const taskId = taskIdOf(SEED, plan?.index ?? -1)
  const output = lifeOf(taskId)
  // Its declared output is not there either.
  expect(await judge([], [], { output })).toMatchObject({ lost: 2, corrupt: 0 })
  const kept = async (content: Buffer): Promise<Copy> => {
    const archive = pack()
    archive.entry({ name: `left/${UNDECLARED_FILE}` }, content)
    archive.finalize()
    const bytes = gzipSync(await buffer(archive))
    return copyOf(FIRST, {
      key: `${taskId}/20260101-000000-undeclared-outputs.tar.gz`,
      bytes,
      claimedSha256: digest(bytes),
      metadata: {},
    })
  }
  const bytes = undeclaredBytes(SEED, taskId)
  expect(await judge([], [await kept(bytes)], { output })).toMatchObject({ lost: 1, corrupt: 0 })
  const failed_outputs = [
    { path: 'undeclared-outputs.tar.gz', reason: 'cannot write: No space left on device' },
  ]
  const manifest = { results: [], attempts: [{ attempt: 1, outcome: 'succeeded', keys: [], failed_outputs }] }
  expect(await judge([], [], { output, manifest, manifestOf: taskId })).toMatchObject({ lost: 1 })
  const short = await kept(bytes.subarray(1))
  expect(await judge([], [short], { output })).toMatchObject({ corrupt: 1 })
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

it('forgives a persister only what the program that fed it had written when it was killed', async () => {
  const [number = 0] = Array.from({ length: 100 }, (_, i) => i).filter((i) => {
    const { shape, sizeBytes } = planOperation(SEED, i)
    return shape === 'stdin' && sizeBytes > 10
  })
  const { bytes } = copyOf(number)
  const copyWith = (kept: Buffer): Copy => copyOf(number, { bytes: kept, claimedSha256: digest(kept) })
  const start = copyWith(bytes.subarray(0, 5))
  expect(await judge([], [start])).toMatchObject({ corrupt: 0, cutShort: 1 })
  expect(await judge([], [copyWith(bytes.subarray(1))])).toMatchObject({ corrupt: 1, cutShort: 0 })
  const { result: _, ...heard } = acknowledged(number)
  expect(await judge([{ ...heard, status: 'killed' }], [start])).toMatchObject({ corrupt: 1, cutShort: 0 })
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
  const manifest = { results: [{ key: `${TASK}/20260101-000000-other`, sha256: '' }] }
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
  const certificates = [1, 2].map((n) => `${TASK}/20260101-00000${n}-death-certificate.json`)
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

it('takes for told what a manifest names as given up, and what may have come after a forced end', async () => {
  const key = keyOf(FIRST)
  const mistold = async (told: object, forced?: string) => {
    const attempt = { attempt: 1, outcome: 'killed', exit: null, sandbox_id: 'box', keys: [] }
    const manifest = { outcome: 'killed', results: [], attempts: [{ ...attempt, ...told }], ...told }
    return (await judge([acknowledged(FIRST)], [copyOf(FIRST)], { manifest, ...(forced && { forced }) }))
      .mistold
  }
  expect(await mistold({ undelivered: [{ key }] })).toBe(0)
  expect(await mistold({})).toBe(1)
  expect(await mistold({ complete: false }, lifeOf(TASK))).toBe(0)
  expect(await mistold({ complete: true }, lifeOf(TASK))).toBe(1)
})
