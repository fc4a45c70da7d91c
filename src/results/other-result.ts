import { ConductorError } from '../errors.js'
import type { BodyFacts, ResultStore } from '../stores/result-store.js'
import type { TierProblem } from './read-tiers.js'

/**
 * What is to be said of a place that has another result under a key; undefined where it has the same one, and where nobody can
 * tell. Two sandboxes of a task whose clocks differ may take one key, each for a result of its own on a tier of its own.
 */
export function otherResult(
  meant: BodyFacts | undefined,
  { name, tier }: ResultStore,
  there: BodyFacts | undefined,
): TierProblem | undefined {
  if (meant?.sha256 === undefined || there?.sha256 === undefined || meant.sha256 === there.sha256) {
    return undefined
  }
  const said = `${meant.key} in ${name} is another result, with SHA-256 ${there.sha256}, than that with ${meant.sha256}`
  return { key: meant.key, store: name, tier, error: new ConductorError('EXISTS', said) }
}
