import { expect, it } from 'vitest'
import { compareReadings } from '../../faults/reading-back.js'

const found = (...places: string[]) => new Map([['task/key', { content: 'abc', places: new Set(places) }]])
const compare = (digest: string | undefined, places: readonly string[]): string[] =>
  compareReadings(
    { digests: new Map(digest === undefined ? [] : [['task/key', digest]]), problems: [] },
    found(...places),
  )

it('finds where the SDK and plain requests see different things', () => {
  expect(compare('abc', ['s3'])).toEqual([])
  expect(compare('abc', ['http', 's3'])).toEqual([])
  expect(compare('abd', ['s3'])).toHaveLength(1)
  expect(compare(undefined, ['s3'])).toHaveLength(1)
  expect(compare('abc', ['http'])).toEqual(['task/key is in http, and was not moved up'])
  expect(compareReadings({ digests: new Map([['task/key', 'abc']]), problems: [] }, new Map())).toHaveLength(
    1,
  )
  expect(compareReadings({ digests: new Map(), problems: ['rehome failed'] }, new Map())).toHaveLength(1)
})
