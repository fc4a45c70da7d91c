import { text } from 'node:stream/consumers'
import { expect, it } from 'vitest'
import type { CarryStore } from '../../../../src/conductor/end/carry.js'
import { drawCertificate, storeCertificate } from '../../../../src/conductor/end/death-certificate.js'
import { ConductorError } from '../../../../src/errors.js'
import type { DeathCertificate } from '../../../../src/protocol/death-certificate.js'
import type { ResultRecord } from '../../../../src/protocol/record.js'
import { describeRecord } from '../../../../src/stores/result-store.js'

const CERTIFICATE: DeathCertificate = {
  v: 1,
  task_id: 'task',
  attempt: 1,
  sandbox_id: 'sandbox',
  cause: 'sandbox_vanished',
  at: '2026-01-14T12:00:00.000Z',
  outcome: 'lost',
  exit: null,
  last_heartbeat_at: null,
  last_seen_at: '2026-01-14T12:00:00.000Z',
  taken_over: false,
  evidence: [],
  log_tail: { stdout: '', stderr: '' },
}

/** Objects of one tier, in memory; `fails` says what becomes of a put. */
function memoryStore(tier: 's3' | 'http', fails: () => 'away' | 'unheard' | undefined) {
  const objects = new Map<string, { readonly record: ResultRecord; readonly content: string }>()
  const put: CarryStore['put'] = async (record, body) => {
    const failure = fails()
    if (failure !== 'away') {
      if (objects.has(record.key)) throw new ConductorError('EXISTS', `${record.key} is there`)
      objects.set(record.key, { record, content: await text(body) })
    }
    if (failure !== undefined) throw new ConductorError('UNAVAILABLE', failure, { retryable: true })
    return record.key
  }
  const describe: CarryStore['describe'] = async (key) => {
    const there = objects.get(key)
    return there === undefined ? undefined : describeRecord(there.record)
  }
  return { store: { tier, name: tier, put, describe } as unknown as CarryStore, objects }
}

it('is one, though a lesser tier took it unheard while S3 was away', async () => {
  let isAway = true
  const s3 = memoryStore('s3', () => (isAway ? 'away' : undefined))
  const http = memoryStore('http', () => 'unheard')
  const places = { s3: s3.store, http: http.store, intents: undefined }
  const mine = drawCertificate(CERTIFICATE, 'spawn', { encryption: undefined })
  expect(await storeCertificate(mine, places)).toBeUndefined()
  isAway = false
  // Of another conductor, which saw the same death with other eyes.
  const saw = { ...CERTIFICATE, evidence: ['it was seen to go'] }
  const theirs = drawCertificate(saw, 'spawn', { encryption: undefined })
  const { key, sha256 } = mine.record
  expect(await storeCertificate(theirs, places)).toMatchObject({ record: { key, sha256 }, tiers: ['http'] })
  expect(await storeCertificate(mine, places)).toMatchObject({ record: { key, sha256 }, tiers: ['s3'] })
  expect(s3.objects.get(key)?.content).toBe(http.objects.get(key)?.content)
})
