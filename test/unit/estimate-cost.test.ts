import { expect, it } from 'vitest'
import { estimateCost } from '../../src/estimate-cost.js'

it("estimateCost reproduces the guide's example: 1,000 workers with 10 MB each", () => {
  const cost = estimateCost({ workers: 1000, bytesPerWorker: 10_000_000 })
  expect(cost.storage).toBeCloseTo(0.23)
  expect(cost.puts).toBeCloseTo(0.005)
  expect(cost.total).toBeCloseTo(0.235)
})

it('estimateCost takes other prices and counts reads and months', () => {
  const options = { workers: 10, bytesPerWorker: 1e9, months: 2, resultsPerWorker: 100, readsPerResult: 3 }
  const cost = estimateCost({ ...options, prices: { perGbMonth: 0.01, perThousandGets: 1 } })
  expect(cost).toEqual({ storage: 0.2, puts: 0.005, gets: 3, total: 3.205 })
})

it('estimateCost names what is wrong', () => {
  expect(() => estimateCost({ workers: -1, bytesPerWorker: 1 })).toThrow(/estimateCost: workers/)
})
