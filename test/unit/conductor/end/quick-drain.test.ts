import { execFile } from 'node:child_process'
import { mkdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { isQuickDrain, parseQuickDrain, quickDrainScript } from '../../../../src/conductor/end/quick-drain.js'
import type { ResultRecord } from '../../../../src/protocol/record.js'
import { makeTempDir } from '../../../support/temp-dir.js'

const run = promisify(execFile)
const at = '2026-01-02T03:04:05.000Z'

function recordOf(name: string, stored: ResultRecord['stored']): ResultRecord {
  const timestamp = '20260102-030405'
  return {
    v: 1,
    task_id: 'a-task',
    timestamp,
    name,
    key: `a-task/${timestamp}-${name}`,
    size: 1,
    sha256: '0'.repeat(64),
    content_type: 'text/plain',
    metadata: { said: 'ünd "mehr"' },
    created_at: at,
    archive: null,
    stored,
    errors: {},
  }
}

it('a drain is quick where all is stored remotely, and left to the program where anything else is to be found', async () => {
  await using dir = await makeTempDir()
  const localDir = `${dir.path}/it's a spool`
  const spool = `${localDir}/a-task`
  const worker = `${localDir}/.worker/a-task`
  const inS3 = [{ tier: 's3', location: 's3://bucket/key', at }] as const
  const put = async (record: ResultRecord, file = record.key.slice('a-task/'.length)): Promise<void> => {
    await writeFile(`${spool}/${file}`, '.')
    await writeFile(`${spool}/${file}.meta.json`, `${JSON.stringify(record)}\n`)
  }
  const drain = async (): Promise<string> => {
    const script = `mark=mark\n${quickDrainScript({ taskId: 'a-task', localDir, seal: 'me' })}\necho the program; pwd`
    const env = { PATH: process.env.PATH, TMPDIR: dir.path }
    return (await run('bash', ['-c', script], { env, cwd: dir.path })).stdout
  }
  const left = `the program\n${dir.path}\n`
  const seal = (): Promise<boolean> =>
    stat(`${worker}/sealed-me`).then(
      () => true,
      () => false,
    )
  const leftTo = async (path: string): Promise<void> => {
    expect(await drain()).toBe(left)
    expect(await seal()).toBe(false)
    await rm(path, { recursive: true })
  }
  await mkdir(`${spool}/.pending`, { recursive: true })
  await mkdir(`${spool}/.upload`)
  await mkdir(worker, { recursive: true })
  const records = [recordOf('b ü', inS3), recordOf('a', inS3)]
  for (const record of records) await put(record)

  await writeFile(`${spool}/.pending/one`, '')
  await leftTo(`${spool}/.pending/one`)
  await writeFile(`${spool}/.upload/one`, '')
  await leftTo(`${spool}/.upload/one`)
  await mkdir(`${dir.path}/persist-result-claims`)
  await leftTo(`${dir.path}/persist-result-claims`)
  await put(recordOf('c', []))
  await leftTo(`${spool}/20260102-030405-c.meta.json`)
  await put(recordOf('c', inS3), 'another name')
  await leftTo(`${spool}/another name.meta.json`)
  await put(recordOf('c', inS3))
  await rm(`${spool}/20260102-030405-c`)
  await leftTo(`${spool}/20260102-030405-c.meta.json`)

  // Nobody's fence, nobody's seal.
  expect(await drain()).toBe(left)
  await writeFile(`${worker}/finishing-me`, '')
  // Without this, an empty report, and the sandbox gone with all that it hides.
  await rename(spool, `${dir.path}/moved`)
  expect(await drain()).toBe(left)
  await writeFile(spool, '')
  await leftTo(spool)
  await rename(`${dir.path}/moved`, spool)

  const printed = await drain()
  expect(isQuickDrain(printed, 'mark')).toBe(true)
  expect(parseQuickDrain(printed, 'mark')).toEqual({ v: 1, outputs: [], records: records.toReversed() })
  expect(await seal()).toBe(true)
  await writeFile(`${spool}/20260102-030405-d`, '.')
  await writeFile(`${spool}/20260102-030405-d.meta.json`, '{"key":"a-task/20260102-030405-d"')
  expect(parseQuickDrain(await drain(), 'mark')).toBeUndefined()
})
