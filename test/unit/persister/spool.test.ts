import { createHash } from 'node:crypto'
import { readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ownOwner, parseOwner } from '../../../src/files/owner.js'
import { listResults, persistResult, retrieveResult } from '../../../src/persister/api.js'
import { takePending } from '../../../src/persister/spool/pending.js'
import { rekey } from '../../../src/persister/spool/rekey.js'
import { listSpool, sweepAbandoned } from '../../../src/persister/spool/scan.js'
import { byteLength, nameProblem } from '../../../src/protocol/key.js'
import { parseRecord } from '../../../src/protocol/parse.js'
import { scratch } from '../../support/persister/scratch.js'

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
const silent = () => undefined

describe('the spool', () => {
  it('gives back whatever names, metadata and bytes it was given', async (test) => {
    const folder = await scratch(test)
    const name = fc
      .string({ unit: 'grapheme', minLength: 1, maxLength: 60 })
      .filter((text) => nameProblem(text) === undefined && byteLength(text) <= 255)
    const metadata = fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue())
    let runs = 0
    await fc.assert(
      fc.asyncProperty(name, metadata, fc.uint8Array({ maxLength: 5000 }), async (name, metadata, bytes) => {
        const env = { WORKER_ID: 'w', WORKER_RESULTS_LOCAL_DIR: join(folder, `${runs++}`) }
        const record = await persistResult(bytes, { name, metadata, env, warn: silent })
        expect(record).toMatchObject({ name, size: bytes.length, sha256: sha256(bytes) })
        expect(record.metadata).toEqual(JSON.parse(JSON.stringify(metadata)))
        expect(parseRecord(JSON.stringify(record))).toEqual(record)
        expect(await listResults('w', { env })).toEqual([record])
        expect(await retrieveResult(record.key, { env })).toEqual(Buffer.from(bytes))
      }),
      { numRuns: 60 },
    )
  })

  it('keeps the record as one line that ends', async (test) => {
    const env = { WORKER_ID: 'w', WORKER_RESULTS_LOCAL_DIR: await scratch(test) }
    const { key } = await persistResult('a b', {
      name: 'n',
      metadata: { text: '\n\u2028' },
      env,
      warn: silent,
    })
    expect(await readFile(join(env.WORKER_RESULTS_LOCAL_DIR, `${key}.meta.json`), 'utf8')).toMatch(
      /^\{[^\n]*\}\n$/,
    )
  })

  it('sweeps up unfinished files only when nobody wrote to them for a day', async (test) => {
    const localDir = await scratch(test)
    const env = { WORKER_ID: 'w', WORKER_RESULTS_LOCAL_DIR: localDir }
    const { key } = await persistResult('a b', { name: 'n', env, warn: silent })
    const old = new Date(Date.now() - 25 * 3_600_000)
    for (const name of ['.tmp-1-old', '.tmp-1-new', '20260101-000000-claimed'])
      await writeFile(join(localDir, 'w', name), '')
    await utimes(join(localDir, 'w/.tmp-1-old'), old, old)
    await utimes(join(localDir, key), old, old)
    await sweepAbandoned(localDir, 'w')
    const left = await readdir(join(localDir, 'w'))
    expect(left.sort()).toEqual(
      ['.pending', '.tmp-1-new', '20260101-000000-claimed', key.slice(2), `${key.slice(2)}.meta.json`].sort(),
    )
  })

  it('hands a pending result to one process at a time, and to the next when that one is dead', async (test) => {
    const localDir = await scratch(test)
    const env = { WORKER_ID: 'w', WORKER_RESULTS_LOCAL_DIR: localDir }
    const record = await persistResult('a b', { name: 'n', env, warn: silent })
    const marker = await takePending(localDir, record)
    expect(marker).toBeDefined()
    expect(await takePending(localDir, record)).toBeUndefined()
    await marker?.release()
    const path = join(localDir, 'w/.pending', `${record.timestamp}-n`)
    // The same process id, started at another time, is another process.
    await writeFile(path, JSON.stringify({ ...ownOwner(), start: '1' }))
    const taken = await takePending(localDir, record)
    expect(taken).toBeDefined()
    await taken?.release()
    // Nothing is known of processes elsewhere but how long ago they said they are at work.
    await writeFile(path, JSON.stringify({ ...ownOwner(), place: 'elsewhere' }))
    expect(await takePending(localDir, record)).toBeUndefined()
    const old = new Date(Date.now() - 120_000)
    await utimes(path, old, old)
    const last = await takePending(localDir, record)
    expect(last).toBeDefined()
    await last?.settle()
    await rm(path, { force: true })
    expect(parseOwner('{"pid":1')).toBeUndefined()
  })

  it('moves a result to the same new key, however often and by whomever it is asked', async (test) => {
    const localDir = await scratch(test)
    const env = { WORKER_ID: 'w', WORKER_RESULTS_LOCAL_DIR: localDir }
    const record = await persistResult('a b', { name: 'n', env, warn: silent })
    const [one, two] = await Promise.all([takePending(localDir, record), takePending(localDir, record)])
    const marker = one ?? two
    if (marker === undefined) throw new Error('nobody holds the marker')
    const moves = await Promise.allSettled([rekey(localDir, record, marker), rekey(localDir, record, marker)])
    for (const move of moves) if (move.status === 'fulfilled') await move.value.marker.release()
    const records = await listSpool(localDir, 'w')
    expect(records).toHaveLength(1)
    expect(records[0]?.key).not.toBe(record.key)
    expect((await retrieveResult(records[0]?.key ?? '', { env })).toString()).toBe('a b')
  })
})
