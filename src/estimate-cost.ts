import { z } from 'zod'
import { checkOptions } from './check-options.js'

/** What a store charges, in dollars. */
export interface StoragePrices {
  /** Per GB (10⁹ bytes) and month. @default 0.023, S3 Standard */
  readonly perGbMonth?: number | undefined
  /** Per 1,000 uploads. @default 0.005 */
  readonly perThousandPuts?: number | undefined
  /** Per 1,000 downloads. @default 0.0004 */
  readonly perThousandGets?: number | undefined
}

/** How much is stored, for how long. */
export interface CostOptions {
  readonly workers: number
  /** Bytes that each worker leaves. */
  readonly bytesPerWorker: number
  /** @default 1 */
  readonly months?: number | undefined
  /** @default 1 */
  readonly resultsPerWorker?: number | undefined
  /** How often each result is fetched. @default 0 */
  readonly readsPerResult?: number | undefined
  readonly prices?: StoragePrices | undefined
}

/** Dollars, by what they are for. */
export interface CostEstimate {
  readonly storage: number
  readonly puts: number
  readonly gets: number
  readonly total: number
}

const amount = z.number().nonnegative()

const costOptionsSchema = z.strictObject({
  workers: amount,
  bytesPerWorker: amount,
  months: amount.default(1),
  resultsPerWorker: amount.default(1),
  readsPerResult: amount.default(0),
  prices: z
    .strictObject({
      perGbMonth: amount.default(0.023),
      perThousandPuts: amount.default(0.005),
      perThousandGets: amount.default(0.0004),
    })
    .prefault({}),
})

/** What keeping results in S3 costs, by the list prices of S3 Standard unless others are given; traffic out of AWS is not in it. */
export function estimateCost(options: CostOptions): CostEstimate {
  const checked = checkOptions('estimateCost', costOptionsSchema, options)
  const { workers, bytesPerWorker, months, resultsPerWorker, readsPerResult, prices } = checked
  const results = workers * resultsPerWorker
  const storage = ((workers * bytesPerWorker) / 1e9) * months * prices.perGbMonth
  const puts = (results / 1000) * prices.perThousandPuts
  const gets = ((results * readsPerResult) / 1000) * prices.perThousandGets
  return { storage, puts, gets, total: storage + puts + gets }
}
