import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isConductorError } from '../../../src/errors.js'
import {
  assertKey,
  assertName,
  assertTaskId,
  byteLength,
  compareKeys,
  formatKey,
  formatTimestamp,
  nameProblem,
  nextTimestamp,
  parseKey,
  parseTimestamp,
} from '../../../src/protocol/key.js'
import { spoolFileName } from '../../../src/protocol/spool-layout.js'

const taskIds = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/)
const names = fc
  .string({ unit: 'grapheme', minLength: 1, maxLength: 80 })
  .filter((name) => nameProblem(name) === undefined)
const moments = fc.date({
  min: new Date('1970-01-01T00:00:00Z'),
  max: new Date('9999-12-31T23:59:58Z'),
  noInvalidDate: true,
})

function codeOf(run: () => void): string | undefined {
  try {
    run()
  } catch (error) {
    return isConductorError(error) ? error.code : 'another error'
  }
  return undefined
}

describe('keys', () => {
  it('take apart to what they were put together from', () => {
    fc.assert(
      fc.property(taskIds, moments, names, (taskId, moment, name) => {
        const parts = { taskId, timestamp: formatTimestamp(moment), name }
        expect(parseKey(formatKey(parts))).toEqual(parts)
      }),
    )
  })

  it('look as users know them', () => {
    const moment = new Date('2026-01-14T12:00:00.999Z')
    const timestamp = formatTimestamp(moment)
    expect(formatKey({ taskId: 'worker-123', timestamp, name: 'output.json' })).toBe(
      'worker-123/20260114-120000-output.json',
    )
  })

  it('of one task sort by time, whatever their names', () => {
    fc.assert(
      fc.property(taskIds, moments, moments, names, names, (taskId, a, b, nameA, nameB) => {
        const [first, second] = [formatTimestamp(a), formatTimestamp(b)]
        fc.pre(first < second)
        const keyA = formatKey({ taskId, timestamp: first, name: nameA })
        const keyB = formatKey({ taskId, timestamp: second, name: nameB })
        expect(compareKeys(keyA, keyB)).toBeLessThan(0)
      }),
    )
  })

  it('compare as their UTF-8 bytes do', () => {
    const texts = fc.string({ unit: 'binary', maxLength: 12 })
    fc.assert(
      fc.property(texts, texts, (a, b) => {
        expect(Math.sign(compareKeys(a, b))).toBe(Buffer.compare(Buffer.from(a), Buffer.from(b)))
      }),
    )
    // The pair that JavaScript's own order gets wrong.
    expect(compareKeys('\u{1f600}', '\uff5e')).toBeGreaterThan(0)
  })

  it.each([
    ['no slash', 'worker-20260114-120000-a'],
    ['a bad task id', '.tasks/20260114-120000-a'],
    ['no name', 'w/20260114-120000-'],
    ['no separator', 'w/20260114-120000a'],
    ['a day that does not exist', 'w/20260230-120000-a'],
    ['an hour that does not exist', 'w/20260114-250000-a'],
    ['the hour after the last', 'w/99991231-240000-a'],
    ['29 February of a common year', 'w/21000229-000000-a'],
    ['month 13', 'w/20261301-000000-a'],
    ['a second segment', 'w/20260114-120000-a/b'],
    ['a record', 'w/20260114-120000-a.meta.json'],
    ['a control character', 'w/20260114-120000-a\nb'],
    ['an empty string', ''],
  ])('are refused with %s', (_what, key) => {
    expect(parseKey(key)).toBeUndefined()
    expect(codeOf(() => assertKey(key))).toBe('INVALID_OPTION')
  })
})

describe('task ids', () => {
  it.each(['', '.hidden', '-flag', '_x', 'a/b', 'a b', '../x', 'ä', 'a\0', 'a\n', 'x'.repeat(129)])(
    '%j is refused',
    (taskId) => {
      expect(codeOf(() => assertTaskId(taskId))).toBe('INVALID_OPTION')
    },
  )

  it('that are not strings are refused', () => {
    for (const value of [undefined, null, 7, {}, ['a']]) {
      expect(codeOf(() => assertTaskId(value))).toBe('INVALID_OPTION')
    }
  })
})

describe('names', () => {
  it.each([
    '',
    '.',
    '..',
    'a/b',
    '/a',
    'a\0b',
    'a\tb',
    'a\x7f',
    'a\x85',
    '\ud800',
    'x.meta.json',
    '.meta.json',
    'x'.repeat(256),
    'ü'.repeat(128),
  ])('%j is refused', (name) => {
    expect(codeOf(() => assertName(name))).toBe('INVALID_OPTION')
  })

  it.each([
    'a b',
    '...',
    '報告 2026.pdf',
    '-n',
    'it\'s "quoted"',
    '\u202eabc',
    'x'.repeat(255),
    'ü'.repeat(127),
  ])('%j is taken', (name) => {
    expect(codeOf(() => assertName(name))).toBeUndefined()
  })

  it('of any length fit a file name together with the record beside them', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 255 }), (name) => {
        fc.pre(nameProblem(name) === undefined)
        expect(byteLength(`${spoolFileName('20260114-120000', name)}.meta.json`)).toBeLessThanOrEqual(255)
      }),
    )
    expect(spoolFileName('20260114-120000', 'a.txt')).toBe('20260114-120000-a.txt')
    expect(spoolFileName('20260114-120000', 'x'.repeat(229))).toBe(`20260114-120000-${'x'.repeat(229)}`)
    expect(spoolFileName('20260114-120000', 'x'.repeat(230))).toMatch(/^20260114-120000-~[0-9a-f]{64}$/)
  })
})

describe('timestamps', () => {
  it('are UTC seconds, cut and not rounded', () => {
    fc.assert(
      fc.property(moments, (moment) => {
        const parsed = parseTimestamp(formatTimestamp(moment))
        expect(parsed?.getTime()).toBe(Math.floor(moment.getTime() / 1000) * 1000)
      }),
    )
  })

  it('move on by one second across every boundary', () => {
    expect(nextTimestamp('20241231-235959')).toBe('20250101-000000')
    expect(nextTimestamp('20240228-235959')).toBe('20240229-000000')
  })
})
