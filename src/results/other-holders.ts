import type { CallOptions } from '../call-options.js'
import { isConductorError } from '../errors.js'
import type { BodyFacts, ResultStore } from '../stores/result-store.js'
import type { ResultsContext } from './context.js'
import { otherResult } from './other-result.js'
import type { TierProblem } from './read-tiers.js'

/**
 * Which of a task's places hold a result besides those that are known to: it may have been delivered since, and where one answers
 * the others are not asked in the first place. One that cannot tell, or has another result under the key, is reported and passed
 * over.
 *
 * @param meant what is known of the result's bytes
 */
export async function otherHolders(
  context: ResultsContext,
  key: string,
  known: readonly ResultStore[],
  meant: BodyFacts | undefined,
  options: CallOptions,
): Promise<readonly ResultStore[]> {
  const { taskId, manifests } = context
  const asked = async <T>(place: Omit<TierProblem, 'key' | 'error'>, ask: () => Promise<T>) => {
    try {
      return await ask()
    } catch (error) {
      if (!isConductorError(error)) throw error
      context.onProblem?.({ key, ...place, error })
      return undefined
    }
  }
  const manifest = await asked({ store: 'manifest', tier: 's3' }, async () =>
    manifests?.read(taskId, options),
  )
  const recorded = await asked({ store: 'intent', tier: 's3' }, async () =>
    context.recorded?.(manifest, options),
  )
  const names = new Set(known.map(({ name }) => name))
  const places = [...(await context.stores(options)), ...(recorded ?? [])].filter(
    ({ name, lastResort }) => !names.has(name) && (lastResort !== true || manifest?.complete !== true),
  )
  const found = await Promise.all(
    places.map((store) => asked({ store: store.name, tier: store.tier }, () => store.describe(key, options))),
  )
  return places.filter((store, i) => {
    const problem = otherResult(meant, store, found[i])
    if (problem !== undefined) context.onProblem?.(problem)
    return found[i] !== undefined && problem === undefined
  })
}
