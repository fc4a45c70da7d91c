import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ConductorError } from '../../../src/errors.js'
import {
  parseDrainReport,
  parseExitRecord,
  parseJsonObject,
  parseManifest,
  parseRecord,
} from '../../../src/protocol/parse.js'
import { recordFor } from '../../support/records.js'

const record = recordFor({ taskId: 'w', name: 'r', metadata: { n: 1 } }, Buffer.from('x'))
const exit = {
  v: 1,
  task_id: 'w',
  run_id: '1',
  code: 0,
  signal: null,
  started_at: record.created_at,
  ended_at: record.created_at,
}
const manifest = {
  v: 1,
  task_id: 'w',
  sealed_at: record.created_at,
  outcome: 'succeeded',
  exit: { code: 0, signal: null },
  complete: true,
  attempts: [],
  results: [record],
}
const drain = { v: 1, outputs: [{ path: 'a', status: 'missing', key: null, error: null }], records: [record] }

const parsers: [string, (text: string) => unknown, object][] = [
  ['record', parseRecord, record],
  ['exit record', parseExitRecord, exit],
  ['manifest', (text) => parseManifest('w', text), manifest],
  ['drain report', parseDrainReport, drain],
]

describe.each(parsers)('a %s', (_what, parse, whole) => {
  it('reads back as it was written', () => {
    expect(parse(JSON.stringify(whole))).toEqual(whole)
  })

  it('is refused when any field is missing or of another type', () => {
    for (const name of Object.keys(whole)) {
      for (const value of [undefined, { nested: [] }, true]) {
        const text = JSON.stringify({ ...whole, [name]: value })
        // Of objects only what they hold is told apart, and true is a version of complete.
        if (
          value !== undefined &&
          ['object', 'boolean'].includes(typeof (whole as Record<string, unknown>)[name])
        )
          continue
        expect(() => parse(text), text).toThrow(expect.objectContaining({ code: 'PROTOCOL' }))
      }
    }
  })

  it('of whatever text gives PROTOCOL and nothing else', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.json(),
          fc.object().map((value) => JSON.stringify(value)),
        ),
        (text) => {
          try {
            parse(text)
          } catch (error) {
            expect(error).toBeInstanceOf(ConductorError)
            expect(error).toMatchObject({ code: 'PROTOCOL', retryable: false })
            return
          }
          throw new Error(`accepted ${text}`)
        },
      ),
    )
  })
})

describe('a record', () => {
  it.each([
    ['key of another task', { key: 'v/20260114-120000-r' }],
    ['name that is not in the key', { name: 's' }],
    ['timestamp that is not in the key', { timestamp: '20260114-120001' }],
    ['negative size', { size: -1 }],
    ['size with a fraction', { size: 1.5 }],
    ['digest in capitals', { sha256: record.sha256.toUpperCase() }],
    ['short digest', { sha256: 'ff' }],
    ['list for metadata', { metadata: [] }],
    ['unknown tier', { stored: [{ tier: 'ftp', location: 'x', at: record.created_at }] }],
    ['unknown version', { v: 2 }],
    ['path for a name', { name: '../x', key: 'w/20260114-120000-../x' }],
  ])('with a %s is refused', (_what, change) => {
    expect(() => parseRecord(JSON.stringify({ ...record, ...change }))).toThrow(
      expect.objectContaining({ code: 'PROTOCOL' }),
    )
  })

  it('keeps metadata as it is, whatever its keys are called', () => {
    const text = JSON.stringify(record).replace('{"n":1}', '{"__proto__":{"n":1},"constructor":null}')
    const { metadata } = parseRecord(text)
    expect(JSON.stringify(metadata)).toBe('{"__proto__":{"n":1},"constructor":null}')
    expect(Object.getPrototypeOf(metadata)).toBe(Object.prototype)
  })

  it('keeps nothing that is not in the contract', () => {
    expect(parseRecord(JSON.stringify({ ...record, extra: 1 }))).toEqual(record)
  })
})

describe('a manifest', () => {
  it('of another task is refused, and one with a result of another task too', () => {
    expect(() => parseManifest('v', JSON.stringify(manifest))).toThrow(/names another task/)
    const foreign = recordFor({ taskId: 'v', name: 'r' }, Buffer.from('x'))
    expect(() => parseManifest('w', JSON.stringify({ ...manifest, results: [foreign] }))).toThrow(
      /names another task/,
    )
  })
})

it('metadata that is no JSON object is undefined', () => {
  for (const text of ['', '[]', 'null', '1', '"x"', '{', '{"a":1}x'])
    expect(parseJsonObject(text)).toBeUndefined()
  expect(parseJsonObject('{"a":[1,null]}')).toEqual({ a: [1, null] })
})

describe('metadata that nests deeper than anybody can read', () => {
  const nested = (depth: number, inner: string): string =>
    `${'{"__proto__":[1,'.repeat(depth / 2)}${inner}${']}'.repeat(depth / 2)}`

  it('is cut where it does, so that no result is lost for it and no reader fails of it', () => {
    for (const parse of [
      (metadata: string) => parseRecord(JSON.stringify(record).replace('{"n":1}', metadata)).metadata,
      parseJsonObject,
    ]) {
      expect(JSON.stringify(parse(nested(1000, '1')))).toBe(nested(1000, '1'))
      expect(JSON.stringify(parse(nested(200_000, '1')))).toBe(nested(1000, 'null'))
    }
  })
})
