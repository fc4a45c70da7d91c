import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { nextTimestamp, parseKey, RECORD_SUFFIX } from '../../../src/protocol/key.js'
import { parseRecord } from '../../../src/protocol/parse.js'
import { spoolFileName } from '../../../src/protocol/spool-layout.js'
import { run } from '../../support/persister/program.js'
import { scratch } from '../../support/persister/scratch.js'
import { SCRIPT, shells } from './shells.js'

/** A `date` that stands still, first on the PATH. */
async function stopClock(folder: string, iso: string): Promise<string> {
  const bin = join(folder, 'bin')
  await mkdir(bin)
  const seconds = Date.parse(iso) / 1000
  await writeFile(
    join(bin, 'date'),
    `#!/bin/sh\nprintf '%s %s\\n' '${iso.slice(0, -1)}.123456789' ${seconds}\n`,
    { mode: 0o755 },
  )
  return `${bin}:${process.env.PATH}`
}

describe.each(shells)('keys in $name', ({ argv }) => {
  const script = [...argv, SCRIPT]

  it('knows a key from what is none, as the protocol does', async (test) => {
    const WORKER_RESULTS_LOCAL_DIR = await scratch(test)
    const task = fc.oneof(
      fc.constantFrom(
        't',
        'worker-123',
        'A.b_c-9',
        '.dot',
        '-x',
        '',
        'a b',
        'é',
        'x'.repeat(128),
        'x'.repeat(129),
        'a/b',
        '*',
      ),
      fc.string({ maxLength: 6 }),
    )
    const stamp = fc.oneof(
      fc.constantFrom(
        '20260114-120000',
        '20240229-235959',
        '20230229-000000',
        '20261301-000000',
        '20260100-000000',
        '20260114-240000',
        '20260114-126000',
        '20260114-120060',
        '2026114-120000',
        '00000101-000000',
        '99991231-235959',
        '19690720-201700',
      ),
      fc.date({ min: new Date('0001-01-01'), max: new Date('9999-12-31'), noInvalidDate: true }).map((at) =>
        at
          .toISOString()
          .replace(/[-:]|\.\d+Z/g, '')
          .replace('T', '-'),
      ),
    )
    const name = fc.oneof(
      fc.constantFrom('a', 'a.meta.json', '.', '..', '$(touch x)', '*', '-n', "it's", '\u0085', ' '),
      fc.string({ unit: 'grapheme', maxLength: 12 }),
    )
    await fc.assert(
      fc.asyncProperty(task, stamp, name, async (taskId, timestamp, last) => {
        const key = `${taskId}/${timestamp}-${last}`
        fc.pre(!key.includes('\0'))
        const { status } = await run([...script, `--retrieve=${key}`], { env: { WORKER_RESULTS_LOCAL_DIR } })
        expect([key, status]).toEqual([key, parseKey(key) === undefined ? 2 : 1])
      }),
      { numRuns: 60 },
    )
  })

  it.each([
    '2024-02-28T23:59:59Z',
    '2023-02-28T23:59:59Z',
    '2026-12-31T23:59:59Z',
    '2000-02-29T23:59:59Z',
    '2026-08-09T08:09:08Z',
  ])('moves on by a second where a key is taken, from %s', async (iso) => {
    const cleanups: (() => unknown)[] = []
    try {
      const folder = await scratch({ onTestFinished: (fn) => void cleanups.push(fn as () => unknown) })
      const env = {
        PATH: await stopClock(folder, iso),
        WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool'),
        WORKER_ID: 't',
      }
      let expected = iso.replace(/[-:Z]/g, '').replace('T', '-')
      for (let i = 0; i < 3; i++) {
        const { key } = await run([...script, '-q', '-', '-n', 'x'], { env, input: String(i) })
        expect(key).toBe(`t/${expected}-x`)
        const record = parseRecord(await readFile(join(folder, 'spool', `${key}${RECORD_SUFFIX}`), 'utf8'))
        expect(record.created_at).toBe(`${iso.slice(0, -1)}.123Z`)
        expected = nextTimestamp(expected)
      }
    } finally {
      for (const cleanup of cleanups) await cleanup()
    }
  })

  it('gives long names the file names of the protocol', async (test) => {
    const folder = await scratch(test)
    const env = { WORKER_RESULTS_LOCAL_DIR: folder, WORKER_ID: 't' }
    for (const name of [
      'x'.repeat(229),
      'x'.repeat(230),
      'é'.repeat(114),
      'é'.repeat(115),
      'x'.repeat(255),
    ]) {
      const { key } = await run([...script, '-q', '-', '-n', name], { env, input: name })
      const timestamp = parseKey(key)?.timestamp ?? ''
      expect(await readFile(join(folder, 't', spoolFileName(timestamp, name)), 'utf8')).toBe(name)
      expect((await run([...script, '--retrieve', key], { env })).stdout).toBe(name)
    }
  })
})
