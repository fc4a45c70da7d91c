import pLimit from 'p-limit'
import { z } from 'zod'
import type { CallOptions } from '../../call-options.js'
import { checkOptions } from '../../check-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import type { ResultRecord } from '../../protocol/record.js'
import type { TierProblem } from '../../results/read-tiers.js'
import type { Result } from '../../results/result.js'
import type { Results } from '../../results/results.js'
import { signalSchema } from '../../signals.js'
import type { ManifestStore } from '../../stores/manifest-store.js'
import type { StoreTier } from '../../stores/result-store.js'
import { type CarryStore, carryOnce, holds } from '../end/carry.js'
import { recordOf } from '../end/found-results.js'

const CONCURRENT_MOVES = 8

/** Options of {@link Conductor.rehome}. */
export interface RehomeOptions extends CallOptions {
  /** Task ids, or a glob over them. @default '*', all tasks */
  readonly tasks?: string | readonly string[] | undefined
  /** Told of each result that has been moved. */
  readonly onMoved?: ((moved: RehomedResult) => void) | undefined
}

/** A result that lies in S3 from now on. */
export interface RehomedResult {
  readonly key: string
  readonly sizeBytes: number
  /** Where it lay, and lies still. */
  readonly from: readonly StoreTier[]
}

/** What became of results that lay on a lesser tier. */
export interface RehomeReport {
  readonly moved: readonly RehomedResult[]
  /** These stay where they are; another call tries again. */
  readonly failed: readonly { readonly key: string; readonly error: ConductorError }[]
  /** Tiers that could not be asked what they hold. */
  readonly unavailable: readonly TierProblem[]
}

const rehomeOptionsSchema = z.strictObject({
  signal: signalSchema,
  tasks: z.union([z.string().min(1), z.array(z.string()).readonly()]).default('*'),
  onMoved: z
    .custom<(moved: RehomedResult) => void>((value) => typeof value === 'function', 'must be a function')
    .optional(),
})

/** Where results come from and go to. */
export interface RehomeContext {
  readonly s3: CarryStore | undefined
  readonly manifests: ManifestStore | undefined
  readonly resultsOf: (tasks: string | readonly string[]) => Results
}

/** Copies into S3, checked, what lies only on lesser tiers, and notes it in the manifests. */
export async function rehomeResults(
  { s3, manifests, resultsOf }: RehomeContext,
  options: RehomeOptions,
): Promise<RehomeReport> {
  const { tasks, signal, onMoved } = checkOptions('rehome', rehomeOptionsSchema, options)
  if (s3 === undefined) throw new ConductorError('INVALID_OPTION', 'rehome needs an S3 tier')
  const listed = await resultsOf(tasks).list({ signal })
  const moved: RehomedResult[] = []
  const failed: RehomeReport['failed'][number][] = []
  const records = new Map<string, ResultRecord[]>()
  const limit = pLimit(CONCURRENT_MOVES)
  const move = async (result: Result): Promise<void> => {
    try {
      const record = await copy(result, s3, { signal })
      records.set(record.task_id, [...(records.get(record.task_id) ?? []), record])
      const done = { key: result.key, sizeBytes: result.size, from: result.tiers }
      moved.push(done)
      onMoved?.(done)
    } catch (error) {
      signal?.throwIfAborted()
      if (!isConductorError(error)) throw error
      failed.push({ key: result.key, error })
    }
  }
  try {
    const homeless = listed.filter(({ tiers }) => !tiers.includes('s3'))
    await Promise.all(homeless.map((result) => limit(() => move(result))))
  } finally {
    // Also when it was cut short: what lies there is to be found there.
    for (const [taskId, those] of records) await note(manifests, taskId, those)
  }
  return { moved, failed, unavailable: listed.unavailable }
}

async function copy(result: Result, s3: CarryStore, options: CallOptions): Promise<ResultRecord> {
  const record = await recordOf(result, options)
  if (record === undefined) {
    throw new ConductorError('INTEGRITY', `${result.key} has no digest to be checked by`)
  }
  const cargo = {
    open: async () => result.stream({ ...options, decrypt: false }),
    from: result.locations.join(', '),
  }
  try {
    return await carryOnce(s3, record, cargo, options)
  } catch (error) {
    // Another process may be moving it as well.
    if (!isConductorError(error) || error.code !== 'EXISTS' || !(await holds(s3, record, options)))
      throw error
    return { ...record, stored: [{ tier: 's3', location: s3.name, at: new Date().toISOString() }] }
  }
}

async function note(
  manifests: ManifestStore | undefined,
  taskId: string,
  records: readonly ResultRecord[],
): Promise<void> {
  const byKey = new Map(records.map((record) => [record.key, record]))
  await manifests?.update(taskId, (present) => {
    if (present === undefined) return undefined
    const results = present.results.map((record) => {
      const there = byKey.get(record.key)
      return there === undefined ? record : { ...record, stored: [...there.stored, ...record.stored] }
    })
    return { ...present, results }
  })
}
