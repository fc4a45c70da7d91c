import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { nameProblem } from '../../../src/protocol/key.js'
import { toAsciiJson } from '../../../src/protocol/s3-layout.js'
import { thorough } from '../../support/thorough.js'
import { awkProgram, awks } from './awks.js'

const folder = mkdtempSync(join(tmpdir(), 'persister-sh-test-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const program = join(folder, 'program.awk')
writeFileSync(program, awkProgram())

/** Runs the awk program; its output is shell assignments, which a shell reads back, as in the script. */
function scan(
  awk: readonly string[],
  mode: string,
  { input = '', text }: { input?: string | Buffer; text?: string },
): Map<string, string> {
  const [file = '', ...args] = awk
  const env = {
    PATH: process.env.PATH,
    LC_ALL: 'C',
    ...(text === undefined ? {} : { PERSIST_RESULT_TEXT: text }),
  }
  const assignments = execFileSync(file, [...args, '-v', `mode=${mode}`, '-v', 'task=t', '-f', program], {
    // Names come in the environment, and nothing is read.
    input: mode === 'name' ? '' : Buffer.concat([Buffer.from(input), Buffer.from('\n')]),
    env,
    maxBuffer: 1 << 26,
  })
  const names = [...new Set(assignments.toString('latin1').match(/^[a-z]\w*(?==)/gm) ?? [])]
  const show = names.map((name) => `printf '%s\\0' "\${${name}-}"`).join('\n')
  const values = execFileSync('dash', ['-s'], {
    input: Buffer.concat([assignments, Buffer.from(`\n${show}\n`)]),
    maxBuffer: 1 << 26,
  })
  const texts = values.toString('utf8').split('\0')
  return new Map(names.map((name, i) => [name, texts[i] ?? '']))
}

function isWellFormed(text: string): boolean {
  return !/\p{Cs}/u.test(text)
}

function parse(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : undefined
  } catch {
    return undefined
  }
}

const hostile = fc.oneof(
  fc.string({ unit: 'binary' }).filter(isWellFormed),
  fc.string({
    unit: fc.constantFrom('"', '\\', "'", '$', '`', '\n', ' ', 'u', '0', 'é', '\u{1f600}', '\u0001'),
  }),
)
const jsonObject = fc.dictionary(
  hostile.filter((key) => key !== '__proto__'),
  fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 4 },
      hostile,
      fc.double({ noNaN: true, noDefaultInfinity: true }),
      fc.constantFrom(null, true, false),
      fc.array(tie('value')),
      fc.dictionary(
        hostile.filter((key) => key !== '__proto__'),
        tie('value'),
      ),
    ),
  })).value,
)
const spaced = fc.tuple(jsonObject, fc.constantFrom(undefined, 2, '\t'))

/** Each starts a program. */
const RUNS = thorough ? 80 : 25

describe.each(awks)('JSON in $name', ({ argv }) => {
  it('takes every object and changes nothing but the blanks', () => {
    fc.assert(
      fc.property(spaced, ([value, indent]) => {
        const text = JSON.stringify(value, null, indent)
        const found = scan(argv, 'metadata', { input: text })
        expect(found.get('problem')).toBe('')
        expect(found.get('r_metadata')).toBe(
          JSON.stringify(JSON.parse(text)) === text ? text : found.get('r_metadata'),
        )
        expect(JSON.parse(found.get('r_metadata') ?? '')).toEqual(JSON.parse(text))
        const ascii = found.get('r_metadata_ascii') ?? ''
        if (ascii !== '') {
          expect(ascii).toMatch(/^[\x20-\x7e]*$/)
          expect(ascii).not.toContain('  ')
          expect(JSON.parse(ascii)).toEqual(JSON.parse(text))
          expect(found.get('r_metadata_config')).toBe(ascii.replace(/["\\]/g, '\\$&'))
        }
      }),
      { numRuns: RUNS },
    )
  })

  it('refuses exactly what JSON.parse refuses, and what is no object', () => {
    const broken = fc
      .tuple(
        jsonObject,
        fc.nat(),
        fc.constantFrom('', '"', '\\', ',', '}', ']', '{', ':', '0', '\n', '\u0000', 'x', ' ', '-'),
        fc.nat(2),
      )
      .map(([value, at, put, drop]) => {
        const text = JSON.stringify(value)
        const place = at % (text.length + 1)
        return text.slice(0, place) + put + text.slice(place + drop)
      })
      .filter(isWellFormed)
    fc.assert(
      fc.property(broken, (text) => {
        // The script turns NUL into another control character before awk sees it; no awk can be asked about NUL itself.
        const found = scan(argv, 'metadata', { input: text.replaceAll('\0', '\u0001') })
        expect(found.get('problem') === '').toBe(parse(text) !== undefined)
      }),
      { numRuns: RUNS },
    )
  })

  it.each([
    '',
    ' ',
    '[]',
    '"x"',
    'null',
    '1',
    '{',
    '}',
    '{}{}',
    '{},',
    '{"a"}',
    '{"a":}',
    '{"a":1,}',
    '{,}',
    '{"a":01}',
    '{"a":1.}',
    '{"a":.5}',
    '{"a":+1}',
    '{"a":1e}',
    '{"a":- 1}',
    '{"a":tru}',
    '{"a":nulll}',
    "{'a':1}",
    '{"a":1 2}',
    '{"a":[1,]}',
    '{"a":[,1]}',
    '{"a":[1}',
    '{"a":"\\x"}',
    '{"a":"\\u12g4"}',
    '{"a":"\\u123"}',
    '{"a":"\t"}',
    '{"a":"',
    '{"a":"\\"}',
    '{"a" "b"}',
    '{"a":"b""c"}',
    '{1:2}',
    '{"a":NaN}',
    '\ufeff{}',
    '{"a":1}x',
    '{"a":"b"}"',
  ])('refuses %j', (text) => {
    expect(parse(text)).toBeUndefined()
    expect(scan(argv, 'metadata', { input: text }).get('problem')).not.toBe('')
  })

  it('refuses bytes that are not UTF-8', () => {
    for (const bytes of ['c3', 'c080', 'eda080', 'f4908080', 'ff', 'e282', '80', 'c3a9a9']) {
      const input = Buffer.concat([Buffer.from('{"a":"'), Buffer.from(bytes, 'hex'), Buffer.from('"}')])
      expect(scan(argv, 'metadata', { input }).get('problem')).toBe('bytes that are not UTF-8')
    }
  })

  it('escapes to ASCII as the protocol does, surrogate pairs included', () => {
    const value = { é: '\u{1f600}\u{10ffff}\u007f\u0080\uffff', plain: 'a b' }
    const found = scan(argv, 'metadata', { input: JSON.stringify(value) })
    expect(found.get('r_metadata_ascii')).toBe(toAsciiJson(value))
  })

  // Linear takes seconds; the square of that would take longer than a test may.
  it('takes hundreds of kilobytes of anything in reasonable time', () => {
    const big = [
      { text: '\u00fc"\\\n\''.repeat(50_000) },
      { text: 'ü日\u{1f600}'.repeat(50_000) },
      { list: Array.from({ length: 75_000 }, (_, i) => i) },
      { quotes: "'".repeat(200_000) },
    ]
    for (const value of big) {
      const text = JSON.stringify(value)
      expect(scan(argv, 'metadata', { input: text }).get('r_metadata')).toBe(text)
    }
  })

  it('reads a grant however its strings are escaped, and refuses control characters', () => {
    const grant = {
      v: 1,
      task_id: 't',
      expires_at: '2026-01-01T00:00:00.000Z',
      s3: {
        bucket: 'b\'u"c',
        prefix: 'p\\x',
        region: 'r',
        policy: {
          url: 'http://x/$(id)',
          fields: { key: 'no', Policy: 'a"b\\c\'d', 'x-amz-date': '`id`' },
          max_bytes: 7,
        },
      },
      http: { endpoint: 'http://y', token: 'ü\u{1f600}' },
    }
    const escaped = JSON.stringify(grant).replace(/[b-dü$\u{1f600}]/gu, (c) =>
      Array.from({ length: c.length }, (_, i) => `\\u${c.charCodeAt(i).toString(16).padStart(4, '0')}`).join(
        '',
      ),
    )
    for (const text of [JSON.stringify(grant), JSON.stringify(grant, null, 2), escaped]) {
      expect(JSON.parse(text)).toEqual(grant)
      const found = scan(argv, 'grant', { input: text })
      expect(Object.fromEntries(found)).toMatchObject({
        problem: '',
        g_bucket: grant.s3.bucket,
        g_prefix: grant.s3.prefix,
        g_url: grant.s3.policy.url,
        g_max_bytes: '7',
        g_http: grant.http.endpoint,
        g_token: grant.http.token,
        g_form: 'form-string = "Policy=a\\"b\\\\c\'d"\nform-string = "x-amz-date=`id`"\n',
      })
    }
    for (const bad of ['a\nb', 'a\u0000b', 'a\u007fb']) {
      const input = JSON.stringify({ ...grant, http: { endpoint: bad } })
      expect(scan(argv, 'grant', { input }).get('problem')).not.toBe('')
    }
  })

  it('judges and encodes names as the protocol does', () => {
    const names = fc.oneof(
      hostile,
      fc.string({ unit: 'grapheme', maxLength: 300 }),
      fc.constantFrom(
        '.',
        '..',
        'a/b',
        'x.meta.json',
        '.meta.json',
        'ü'.repeat(128),
        'x'.repeat(255),
        '\u0085',
        '\u00a0',
        '\u{1f600}',
      ),
    )
    fc.assert(
      fc.property(
        names.filter((name) => !name.includes('\0')),
        (name) => {
          const found = scan(argv, 'name', { text: name })
          expect(found.get('n_problem')).toBe(nameProblem(name) ?? '')
          if (nameProblem(name) !== undefined) return
          expect(`"${found.get('n_json')}"`).toBe(JSON.stringify(name))
          expect(found.get('n_uri')).toBe(encodeURIComponent(name))
          expect(decodeURIComponent(found.get('n_path') ?? '')).toBe(name)
          expect(found.get('n_path')).toMatch(/^(?:[A-Za-z0-9._~/-]|%[0-9A-F]{2})*$/)
          expect(found.get('n_bytes')).toBe(String(Buffer.byteLength(name)))
        },
      ),
      { numRuns: RUNS },
    )
  })
})
