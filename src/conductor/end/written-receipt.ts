import type { Manifest } from '../../protocol/manifest.js'
import type { ResultRecord } from '../../protocol/record.js'
import { tiersOf } from '../../results/sealed-elsewhere.js'
import { type Delivery, toDeliveredResult } from './deliver.js'
import type { DeliveredResult, GivenUp, Receipt } from './receipt.js'
import { findAttempt } from './seal.js'
import { type EndedWorker, endOf, sealedWith } from './write-end.js'

/**
 * The receipt of a sandbox that is gone by the word of another conductor, which drained it before it went; undefined where there is
 * none. What was seen of it here counts only for what the other does not tell.
 */
export function writtenReceipt(
  options: EndedWorker,
  manifest: Manifest | undefined,
  seen: readonly Delivery[],
  givenUp: (accounted: readonly ResultRecord[]) => readonly GivenUp[],
): Receipt | undefined {
  const { taskId, sandboxId, record } = options
  const attempt = findAttempt(manifest, { sandboxId, spawnId: record.spawn_id })
  const exit = endOf(options, manifest)
  if (attempt === undefined || exit === undefined || manifest === undefined) return undefined
  const keys = new Set(attempt.keys)
  const {
    undelivered = [],
    missing_outputs: missingOutputs = [],
    failed_outputs: failedOutputs = [],
  } = attempt
  const named = new Set(undelivered.map(({ key }) => key))
  return {
    taskId,
    ...exit,
    ...sealedWith(options, manifest),
    results: manifest.results.filter(({ key }) => keys.has(key)).map((one) => deliveredOf(one, seen)),
    missingOutputs,
    failedOutputs,
    undelivered: [...undelivered, ...givenUp(manifest.results).filter(({ key }) => !named.has(key))],
  }
}

function deliveredOf(record: ResultRecord, seen: readonly Delivery[]): DeliveredResult {
  const own = seen.find(
    (delivery) => delivery.record.key === record.key && delivery.record.sha256 === record.sha256,
  )
  return toDeliveredResult(own ?? { record, tiers: tiersOf(record), verified: false, undelivered: undefined })
}
