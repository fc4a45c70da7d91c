import { expect, it } from 'vitest'
import { formatRound, isClean, type RoundReport } from '../../faults/report.js'

const CLEAN: RoundReport = {
  seed: 1,
  s3: 'local',
  seconds: 1,
  operations: 1,
  calls: 1,
  faults: {},
  planned: { 'cut S3': 2 },
  workers: 1,
  begunAgain: 0,
  verdict: {
    acknowledged: 1,
    lost: [],
    goneWithSandbox: 0,
    givenUp: 0,
    corrupt: [],
    duplicated: [],
    contradictions: [],
    mistold: [],
    unacknowledged: 0,
    cutShort: 0,
  },
  leaked: [],
  openUploads: 0,
  unfinishedFiles: 0,
  encrypted: 0,
  problems: {},
  unexpected: [],
  wrongOutputs: [],
  unstored: [],
  unfelt: [],
  notDone: [],
}

it('calls a round clean only when there is nothing in any list that is judged', () => {
  expect(isClean(CLEAN)).toBe(true)
  for (const list of ['lost', 'corrupt', 'duplicated', 'contradictions', 'mistold'] as const)
    expect(isClean({ ...CLEAN, verdict: { ...CLEAN.verdict, [list]: ['one'] } }), list).toBe(false)
  for (const list of ['leaked', 'unexpected', 'wrongOutputs', 'unstored', 'unfelt'] as const)
    expect(isClean({ ...CLEAN, [list]: ['one'] }), list).toBe(false)
  expect(isClean({ ...CLEAN, openUploads: 1 })).toBe(false)
})

it('tells of faults how many of those that were planned had an effect', () => {
  expect(formatRound({ ...CLEAN, faults: { 'cut S3': 1 } })).toContain('cut S3              1 of 2')
})
