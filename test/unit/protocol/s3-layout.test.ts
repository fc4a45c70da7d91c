import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { JsonObject, ResultRecord } from '../../../src/protocol/record.js'
import {
  MAX_S3_METADATA_BYTES,
  s3ManifestKey,
  s3ObjectKey,
  s3TaskPrefix,
  toAsciiJson,
  toS3Metadata,
} from '../../../src/protocol/s3-layout.js'

function record(name: string, metadata: JsonObject): ResultRecord {
  return {
    v: 1,
    task_id: 'w',
    timestamp: '20260114-120000',
    name,
    key: `w/20260114-120000-${name}`,
    size: 1,
    sha256: '0'.repeat(64),
    content_type: 'text/plain',
    metadata,
    created_at: '2026-01-14T12:00:00.000Z',
    archive: null,
    stored: [],
    errors: {},
  }
}

describe('S3 layout', () => {
  it('keeps one task out of the prefix of another whose id starts alike', () => {
    expect('results/worker-10/x'.startsWith(s3TaskPrefix('results', 'worker-1'))).toBe(false)
    expect(s3TaskPrefix('', 'w')).toBe('w/')
  })

  it('puts manifests where no task id can point', () => {
    expect(s3ManifestKey('results', 'w')).toBe('results/.tasks/w.json')
    expect(s3ManifestKey('', 'w')).toBe('.tasks/w.json')
  })

  it('refuses keys over 1,024 bytes with their prefix', () => {
    const key = `w/20260114-120000-${'x'.repeat(200)}`
    expect(s3ObjectKey('p'.repeat(1024 - key.length - 1), key)).toHaveLength(1024)
    expect(() => s3ObjectKey('p'.repeat(1024 - key.length), key)).toThrow(/1024 bytes/)
  })

  it('writes metadata as ASCII that reads back the same', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue()), (value) => {
        const text = toAsciiJson(value as JsonObject)
        expect(text).toMatch(/^[\x20-\x7e]*$/)
        expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(value)))
      }),
    )
  })

  it('never exceeds the limit, and asks for a sidecar exactly when metadata is left out', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'grapheme', maxLength: 2500 }),
        fc.string({ minLength: 1, maxLength: 60 }),
        (text, name) => {
          const { values, sidecar } = toS3Metadata(record(name, { text }))
          const used = Object.entries(values).reduce(
            (sum, [key, value]) => sum + key.length + value.length,
            0,
          )
          expect(used).toBeLessThanOrEqual(MAX_S3_METADATA_BYTES)
          expect('metadata' in values).toBe(!sidecar)
        },
      ),
    )
  })
})
