import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import type { Manifest } from '../protocol/manifest.js'
import { describeRecord, type ResultDescription, type ResultStore } from '../stores/result-store.js'
import type { ResultsContext } from './context.js'
import { otherResult } from './other-result.js'
import type { TierProblem } from './read-tiers.js'
import { Result } from './result.js'
import { type AskedTiers, sealedElsewhere, sealedRecords } from './sealed-elsewhere.js'

interface Answer {
  readonly store: ResultStore
  readonly description: ResultDescription
}

/** Asks every tier for one key; `undefined` when all of them say that it is absent, rejects as the first one that might hold it and cannot tell. */
export async function findResult(
  context: ResultsContext,
  key: string,
  { signal }: CallOptions,
): Promise<Result | undefined> {
  const stores = await context.stores({ signal })
  const problems: TierProblem[] = []
  const manifest = context.manifests?.read(context.taskId, { signal }).catch((error: unknown) => {
    if (!isConductorError(error)) throw error
    problems.push({ key, store: 'manifest', tier: 's3', error })
    return undefined
  })
  const ask = async (store: ResultStore): Promise<Answer | undefined> => {
    try {
      const description = await store.describe(key, { signal })
      return description === undefined ? undefined : { store, description }
    } catch (error) {
      if (!isConductorError(error)) throw error
      problems.push({ key, store: store.name, tier: store.tier, error })
      return undefined
    }
  }
  const askAll = async (some: readonly ResultStore[]): Promise<Answer[]> =>
    (await Promise.all(some.map(ask))).filter((answer) => answer !== undefined)
  const readRecorded = async (
    recorded: NonNullable<ResultsContext['recorded']>,
    manifest: Manifest | undefined,
  ): Promise<readonly ResultStore[]> => {
    try {
      return await recorded(manifest, { signal })
    } catch (error) {
      if (!isConductorError(error)) throw error
      problems.push({ key, store: 'intent', tier: 's3', error })
      return []
    }
  }
  let answers = await askAll(stores.filter(({ lastResort }) => lastResort !== true))
  const there = await manifest
  const { complete = false, results = [] } = there ?? {}
  let recorded: readonly ResultStore[] = []
  if (answers.length === 0 && context.recorded !== undefined) {
    recorded = await readRecorded(context.recorded, there)
    answers = await askAll(recorded)
  }
  if (answers.length === 0 && !complete) {
    answers = await askAll(stores.filter(({ lastResort }) => lastResort === true))
  }
  const sealed = results.find((record) => record.key === key)
  const description = sealed === undefined ? answers[0]?.description : describeRecord(sealed)
  const others = answers.map((answer) => otherResult(description, answer.store, answer.description))
  const same = answers.filter((_, i) => others[i] === undefined)
  const holding = (same.length > 0 ? same : answers).map(({ store }) => store)
  problems.push(...others.filter((problem) => problem !== undefined))
  for (const problem of problems) context.onProblem?.(problem)
  if (description !== undefined && holding.length > 0) {
    return new Result({ key, size: description.size, stores: holding, description, context })
  }
  const record = sealedRecords(there).get(key)
  const lies = record && sealedElsewhere(record, askedTiers([...stores, ...recorded], problems))
  const [first = lies] = problems.filter(({ error }) => error.code !== 'UNSUPPORTED')
  if (first === undefined) return undefined
  throw new ConductorError(first.error.code, `cannot tell whether ${key} exists: ${first.error.message}`, {
    retryable: first.error.retryable,
    cause: first.error,
  })
}

function askedTiers(stores: readonly ResultStore[], problems: readonly TierProblem[]): AskedTiers {
  const troubled = new Set(problems.map(({ store }) => store))
  return {
    tiers: new Set(stores.map(({ tier }) => tier)),
    silent: new Set(stores.flatMap(({ name, tier }) => (troubled.has(name) ? [tier] : []))),
  }
}
