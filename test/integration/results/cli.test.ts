import { open, readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { pack } from 'tar-stream'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { filterOf } from '../../../src/cli/filter-options.js'
import { asksForHelp, helpOf } from '../../../src/cli/help.js'
import { Interrupted } from '../../../src/cli/interrupts.js'
import { readingOf } from '../../../src/cli/reading-options.js'
import { reportError } from '../../../src/cli/report-error.js'
import { runTask } from '../../../src/cli/run-task.js'
import { Conductor } from '../../../src/conductor/conductor.js'
import { ConductorError } from '../../../src/errors.js'
import { type LocalS3, startLocalS3 } from '../../../src/local/s3/index.js'
import { parsePublicKey } from '../../../src/protocol/encryption/public-key.js'
import { lifecycleRule } from '../../../src/results/lifecycle-rule.js'
import { openS3Location, type S3Location } from '../../../src/stores/s3/s3-location.js'
import { S3Manifests } from '../../../src/stores/s3/s3-manifests.js'
import { startPlainEndpoint } from '../../e2e/plain-endpoint.js'
import { type Ended, runCli, runCliInto } from '../../support/cli.js'
import { plantInS3 } from '../../support/plant-s3.js'
import { collect, recordFor } from '../../support/records.js'
import { sealedResult } from '../../support/sealed.js'
import { makeTempDir } from '../../support/temp-dir.js'
import { postRecord } from '../endpoint/post.js'
import { serveFolder } from '../endpoint/servers.js'

describe('stu-conductor', () => {
  let s3: LocalS3
  let at: S3Location
  beforeAll(async () => {
    s3 = await startLocalS3({ buckets: ['bucket'] })
    at = openS3Location({
      bucket: 'bucket',
      endpoint: s3.url,
      region: s3.region,
      credentials: s3.credentials,
    })
  })
  afterAll(async () => {
    at?.close()
    await s3?.close()
  })

  const run = (...args: string[]): Promise<Ended> => runWith({}, ...args)
  const runWith = (more: Record<string, string>, ...args: string[]): Promise<Ended> =>
    runCli(
      {
        WORKER_RESULTS_S3_BUCKET: 'bucket',
        AWS_REGION: s3.region,
        AWS_ENDPOINT_URL_S3: s3.url,
        AWS_ACCESS_KEY_ID: s3.credentials.accessKeyId,
        AWS_SECRET_ACCESS_KEY: s3.credentials.secretAccessKey,
        ...more,
      },
      ...args,
    )
  const plant = async (
    taskId: string,
    bodies: Record<string, Buffer | string>,
    sealed = true,
  ): Promise<void> => {
    const results = Object.entries(bodies).map(([name, body]) => {
      const archive = name.endsWith('.tar.gz') ? 'tar.gz' : null
      const metadata = { n: 1 }
      return {
        record: recordFor({ taskId, name, archive, metadata }, Buffer.from(body)),
        body: Buffer.from(body),
      }
    })
    await plantInS3(at, results)
    if (!sealed) return
    const stored = [{ tier: 's3' as const, location: 'there', at: '2026-01-14T12:00:00.000Z' }]
    await new S3Manifests(at).update(taskId, () => ({
      v: 1,
      task_id: taskId,
      sealed_at: '2026-01-14T12:01:00.000Z',
      outcome: 'succeeded',
      exit: { code: 0, signal: null },
      complete: true,
      attempts: [],
      results: results.map(({ record }) => ({ ...record, stored })),
    }))
  }

  it('shows, fetches, unpacks, deletes and prunes over several tasks', async () => {
    const tar = pack()
    tar.entry({ name: 'inner.txt' }, 'inside')
    tar.finalize()
    await plant('w-1', {
      'a.txt': 'one',
      'folder.tar.gz': gzipSync(Buffer.concat(await collect(tar as AsyncIterable<Buffer>))),
    })
    await plant('w-2', { 'a.txt': 'one' })
    await plant('odd', { 'evil\u202etxt.exe': 'x' }, false)

    const tasks = await run('tasks', '--json')
    expect(tasks.stderr).toBe('')
    const summaries = tasks.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { taskId: string; outcome?: string })
    expect(summaries.map(({ taskId, outcome }) => [taskId, outcome]).sort()).toEqual([
      ['odd', undefined],
      ['w-1', 'succeeded'],
      ['w-2', 'succeeded'],
    ])
    expect(await run('results', 'list', 'nothing')).toEqual({ code: 0, stdout: '', stderr: 'no results\n' })
    expect((await run('results', 'list', 'odd')).stdout).toContain('evil\\u{202e}txt.exe')
    const unique = await run('results', 'list', '--tasks', 'w-*', '--name', '*.txt', '--unique', '--json')
    expect(unique.stdout.trim().split('\n')).toHaveLength(1)

    await using dir = await makeTempDir()
    const fetched = await run('results', 'download', '--tasks', 'w-*', dir.path, '--extract', '--json')
    expect(fetched).toMatchObject({ code: 0, stderr: '' })
    expect(await readFile(join(dir.path, 'w-1', '20260114-120000-folder', 'inner.txt'), 'utf8')).toBe(
      'inside',
    )
    expect((await readdir(join(dir.path, 'w-1'))).sort()).toEqual([
      '.unpacked.jsonl',
      '20260114-120000-a.txt',
      '20260114-120000-folder',
    ])
    const again = await run('results', 'download', '--tasks', 'w-*', dir.path, '--extract', '--json')
    expect(JSON.parse(again.stdout)).toMatchObject({ saved: [], skipped: [{}, {}, {}], failed: [] })

    const newest = ['--metadata', 'n=1', '--since', '2026-01-14T12:00:00Z', '--until', '2026-01-14T12:00:01Z']
    expect((await run('results', 'list', '--tasks', 'w-*', ...newest, '--limit', '1')).stdout).toMatch(
      /^w-1\/\S+-a\.txt\t3\ts3\t\{"n":1\}\n$/,
    )

    const refused = await run('results', 'delete', 'w-2')
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining('say --yes') })
    expect((await run('results', 'delete', 'w-2/20260114-120000-a.txt', '--yes')).stdout).toBe(
      'w-2/20260114-120000-a.txt\ts3\n',
    )
    const plan = JSON.parse((await run('prune', '--older-than-days', '1', '--dry-run', '--json')).stdout)
    expect(plan).toMatchObject({ dryRun: true, failed: [] })
    // They are sealed long ago by their manifests, but S3 took their results just now.
    expect(plan.skipped.map(({ taskId }: { taskId: string }) => taskId).sort()).toEqual(['w-1'])
    const pruned = await run('prune', '--older-than-days', '0', '--tasks', 'w-*', '--yes', '--json')
    expect(JSON.parse(pruned.stdout)).toMatchObject({ results: 2, failed: [], tasks: [{}, {}] })
  })

  it('copies into S3 what landed on a lesser tier, and says what stays', async () => {
    await using http = await serveFolder()
    const env = { WORKER_RESULTS_ENDPOINT: http.url }
    const records = ['r-1', 'r-2'].map((taskId) => recordFor({ taskId, name: 'a' }, Buffer.from(taskId)))
    for (const record of records) await postRecord(http.url, record, Buffer.from(record.task_id))
    const key = (taskId: string): string => `${taskId}/20260114-120000-a`
    expect(await runWith(env, 'rehome', 'r-1')).toEqual({
      code: 0,
      stdout: `${key('r-1')}\thttp\n`,
      stderr: '1 result(s), 3 bytes, copied into S3\n',
    })
    // A place that can only be written to is told of, and is no failure.
    await using plain = await startPlainEndpoint()
    const listed = await runWith({ WORKER_RESULTS_ENDPOINT: plain.url }, 'results', 'list', 'r-1')
    expect(listed).toMatchObject({ code: 0, stderr: expect.stringContaining('could not answer') })
    await http.server.close()
    const gone = await runWith(env, 'results', 'delete', 'r-2', '--yes')
    expect(gone).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('ECONNREFUSED') })
    const away = await runWith(env, 'rehome', '--tasks', 'r-*', '--json')
    expect(away.code).toBe(1)
    expect(JSON.parse(away.stdout)).toMatchObject({ moved: [], unavailable: [{ code: 'UNAVAILABLE' }] })
  })

  it('makes keys, and reads with them what is encrypted', async () => {
    await using dir = await makeTempDir()
    const file = join(dir.path, 'key.pem')
    const made = await run('keys', 'new', file)
    expect(made).toMatchObject({ code: 0, stdout: expect.stringMatching(/^x25519:[\w-]{43}\n$/) })
    expect(made.stderr).not.toContain('PRIVATE')
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect((await run('keys', 'public', file)).stdout).toBe(made.stdout)
    const privateKey = await readFile(file, 'utf8')
    expect(await run('keys', 'new', file)).toMatchObject({ code: 1, stdout: '' })
    expect(await readFile(file, 'utf8')).toBe(privateKey)

    const publicKey = made.stdout.trim()
    const { id: keyId } = parsePublicKey('key', publicKey)
    const { record, body } = sealedResult(
      { publicKey, privateKey, keyId },
      { taskId: 'e', name: 'a' },
      'secret',
    )
    await plantInS3(at, [{ record, body }])
    const env = { WORKER_RESULTS_DECRYPTION_KEY_FILE: file }
    expect(await runWith(env, 'results', 'get', record.key)).toEqual({
      code: 0,
      stdout: 'secret',
      stderr: '',
    })
    const locked = await run('results', 'get', record.key)
    expect(locked).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('DECRYPTION_KEY_MISSING'),
    })
    const link = await runWith({ WORKER_RESULTS_DECRYPTION_KEY: privateKey }, 'results', 'url', record.key)
    expect(link).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('is encrypted') })
  })

  it('is not thrown off by a reader that leaves early, and fails where its output is lost', async () => {
    expect(await runCliInto('unread', 'help')).toEqual({ code: 0, stderr: '' })
    const full = await open('/dev/full', 'w')
    try {
      expect(await runCliInto(full.fd, 'help')).toEqual({
        code: 1,
        stderr: 'stu-conductor: cannot write the output: ENOSPC\n',
      })
    } finally {
      await full.close()
    }
  })

  it('says of what failed while something was closed what had failed before, and of each once', () => {
    const said = vi.spyOn(process.stderr, 'write').mockImplementation(() => true)
    const gone = new ConductorError('SANDBOX_GONE', 'gone')
    const both = (error: Error, suppressed: Error): Error =>
      Object.assign(new Error('An error was suppressed'), { name: 'SuppressedError', error, suppressed })
    expect(reportError(both(new Error('not closed'), both(gone, gone)), 'stu-conductor --help')).toBe(1)
    expect(said.mock.calls.flat().join('')).toBe(
      'stu-conductor: gone [SANDBOX_GONE]\nstu-conductor: not closed\n',
    )
    expect(reportError(both(gone, new Interrupted('SIGINT')), '')).toBe(130)
  })

  it('helps with every command, and says what is wrong with a call', async () => {
    for (const command of ['run', 'tasks', 'results', 'prune', 'lifecycle', 'rehome', 'estimate', 'local']) {
      expect(helpOf(command)).toContain(`Usage: stu-conductor ${command}`)
    }
    expect(asksForHelp(['run', '--', 'ls', '--help'])).toBe(false)
    expect((await run('prune', '--help')).stdout).toBe(helpOf('prune'))
    expect(await run('prune')).toMatchObject({
      code: 2,
      stderr: 'stu-conductor: say --older-than-days N\nsee stu-conductor prune --help\n',
    })
    await expect(runTask(['echo', 'hi'])).rejects.toThrow('run: put the command after --')
    const many = await run('results', 'list', '--tasks', '*', '--sandboxes', 'paused')
    expect(many).toMatchObject({ code: 2, stderr: expect.stringContaining('one task at a time') })
    const nowhere = { code: 2, stdout: '', stderr: expect.stringContaining('WORKER_RESULTS_S3_BUCKET') }
    expect(await runCli({}, 'results', 'list', 'worker-123')).toMatchObject(nowhere)
    expect(await runCli({}, 'run', '--', 'true')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^stu-conductor: there is no E2B API key: set E2B_API_KEY/),
    })
    await using conductor = new Conductor({ env: {} })
    const places = { code: 'INVALID_OPTION', message: expect.stringContaining('no place to read') }
    await expect(conductor.results('worker-123').latest('r')).rejects.toMatchObject(places)
    await expect(conductor.results('worker-123').get('worker-123/20260114-120000-r')).rejects.toMatchObject(
      places,
    )
    await expect(conductor.results({ tasks: ['a', 'b'] }).list()).rejects.toMatchObject(places)
    expect(() => readingOf({ sandboxes: 'all' })).toThrow(
      '--sandboxes takes none, running or paused (got "all")',
    )
    expect(() => readingOf({ 'after-reading': '' })).toThrow('--after-reading takes pause, kill or leave')
    expect(() => filterOf({ since: '1' })).toThrow('--since takes a time such as')
    expect(() => filterOf({ until: '2026-13-01' })).toThrow('--until takes a time such as')
    expect(() => filterOf({ metadata: ['=x'] })).toThrow('--metadata takes KEY=VALUE')
    expect(filterOf({ metadata: ['a=b=c', 'n=[1]'] })).toEqual({ metadata: { a: 'b=c', n: [1] } })
    expect(() => filterOf({ tier: 's4' })).toThrow('--tier takes s3, http')
    const guide = ['estimate', '--workers', '1000', '--bytes-per-worker']
    expect((await run(...guide, '10MB')).stdout).toMatch(/^total {4}\$0\.2350$/m)
    const { stdout } = await run('lifecycle', '--older-than-days', '30')
    expect(JSON.parse(stdout)).toEqual(lifecycleRule({ olderThanDays: 30 }))
  })
})
