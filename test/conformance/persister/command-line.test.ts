import { execFile } from 'node:child_process'
import { chmod, mkdir, readFile, symlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import type { ResultRecord } from '../../../src/protocol/record.js'
import { startHttpReceiver } from '../../support/persister/http-receiver.js'
import { spoolTarget } from '../../support/persister/targets.js'
import { makeWorker } from '../../support/persister/worker.js'
import { implementations } from './implementations.js'

const exec = promisify(execFile)
/** One remark of the program; more would be noise in a worker's log. */
const ONE_LINE = /^persist-result: [^\n]+\n$/

/** Metadata of so many levels, the outermost object being the first. */
function nested(levels: number): string {
  return `{"a":${'['.repeat(levels - 1)}${']'.repeat(levels - 1)}}`
}

describe.concurrent.each(implementations)('command line, $name', ({ argv }) => {
  describe('wrong usage ends with 2, one line that says what, and nothing stored', () => {
    it.for<[string, string[], RegExp]>([
      ['an unknown option', ['--frobnicate', 'f'], /frobnicate/],
      ['nothing to store', [], /path/],
      ['a name with a slash', ['-n', 'a/b', 'f'], /one path segment/],
      ['a name like a record', ['-n', 'x.meta.json', 'f'], /meta\.json/],
      ['a name with a newline', ['-n', 'a\nb', 'f'], /control/],
      ['an empty name', ['-n', '', 'f'], /empty/],
      ['a name of 256 bytes', ['-n', 'x'.repeat(256), 'f'], /255/],
      ['a bad task id', ['-t', '.dot', 'f'], /task id/],
      ['metadata that is no JSON', ['-m', '{nope', 'f'], /metadata/],
      ['metadata that is a list', ['-m', '[1]', 'f'], /metadata must be a JSON object/],
      ['metadata that is text', ['-m', '"x"', 'f'], /metadata must be a JSON object/],
      ['metadata that is null', ['-m', 'null', 'f'], /metadata must be a JSON object/],
      ['metadata of 101 levels', ['-m', nested(101), 'f'], /: metadata nests deeper than 100 levels\b/],
      ['metadata of 20,000 levels', ['-m', nested(20_000), 'f'], /: metadata nests deeper than 100 levels\b/],
      ['a list of 20,000 levels', ['-m', nested(20_000).slice(5, -1), 'f'], /metadata must be a JSON object/],
      ['20,000 levels without an end', ['-m', nested(20_000).slice(0, -1), 'f'], /metadata is not JSON/],
      ['two paths and one name', ['-n', 'x', 'f', 'f'], /--name/],
      ['standard input without a name', ['-'], /--name/],
      ['an unknown requirement', ['--require', 'ftp', 'f'], /--require/],
      ['a content type with a line end', ['--content-type', 'a/b\r\nx: y', 'f'], /content type/],
      ['a key that is none', ['--retrieve', 'nonsense'], /key/],
    ])('%s', async ([_what, args, says], test) => {
      const worker = await makeWorker(test, argv, spoolTarget)
      await writeFile(join(worker.folder, 'f'), 'x')
      const result = await worker.persist(args, { input: 'x' })
      expect(result).toMatchObject({ status: 2, stdout: '' })
      expect(result.stderr).toMatch(ONE_LINE)
      expect(result.stderr).toMatch(says)
      await expect(worker.records()).rejects.toMatchObject({ code: 'ENOENT' })
    })
  })

  it('takes metadata of 100 levels, whatever brackets there are in its texts', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    const text = `{"[{": "${'[{'.repeat(100)}\\"[{", "one": [{}], "two": [{}], "deep": ${nested(99)}}`
    const result = await worker.persist(['--quiet', '-n', 'x', '-m', text, '-'])
    expect(result).toMatchObject({ status: 0, stderr: '' })
    expect((await worker.records())[0]?.metadata).toEqual(JSON.parse(text))
  })

  it('reads a record whose metadata nests deeper, and delivers its result', async (test) => {
    const receiver = await startHttpReceiver()
    test.onTestFinished(() => receiver[Symbol.asyncDispose]())
    const worker = await makeWorker(test, argv, spoolTarget)
    const { key } = await worker.persist(['--quiet', '-n', 'x', '-m', '{"here":1}', '-'], { input: 'x' })
    const path = join(worker.localDir, `${key}.meta.json`)
    await writeFile(path, (await readFile(path, 'utf8')).replace('{"here":1}', nested(20_000)))
    const env = { WORKER_RESULTS_ENDPOINT: receiver.url }
    for (const args of [
      ['--list', '--json'],
      ['-n', 'y', '-'],
      ['drain', '--json'],
      ['--retrieve', key],
    ]) {
      expect(await worker.persist(args, { env, input: 'y' })).toMatchObject({ status: 0, stderr: '' })
    }
    expect(receiver.posts).toContain(key)
  })

  it('refuses to guess a task', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget, { WORKER_ID: '' })
    await writeFile(join(worker.folder, 'f'), 'x')
    const result = await worker.persist(['f'])
    expect(result).toMatchObject({ status: 2, stdout: '' })
    expect(result.stderr).toMatch(/--task-id.*WORKER_ID/)
  })

  it('ends with 1 for a file that is not there, and stores the others', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    await writeFile(join(worker.folder, 'there.txt'), 'x')
    const result = await worker.persist(['--quiet', 'missing.txt', 'there.txt'])
    expect(result.status).toBe(1)
    expect(result.stdout).toMatch(/-there\.txt\n$/)
    expect(result.stderr).toMatch(ONE_LINE)
    expect(result.stderr).toMatch(/missing\.txt.*no such file/i)
    expect(await worker.records()).toHaveLength(1)
  })

  it('ends with 3 when the result is stored, but not where it was required', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    await writeFile(join(worker.folder, 'f'), 'x')
    for (const where of ['s3', 'http', 'remote']) {
      const result = await worker.persist(['--quiet', '--require', where, 'f'])
      expect(result.status).toBe(3)
      expect((await worker.spooled(result.key)).toString()).toBe('x')
      expect(result.stderr).toMatch(ONE_LINE)
      expect(result.stderr).toContain(where)
    }
  })

  it('says on standard error that a result is only local, unless asked to be quiet', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    await writeFile(join(worker.folder, 'f'), 'x')
    expect((await worker.persist(['f'])).stderr).toMatch(/^persist-result: .*local.*\n$/)
    expect((await worker.persist(['-q', 'f'])).stderr).toBe('')
  })

  it('prints records instead of keys when asked for JSON', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    await writeFile(join(worker.folder, 'f'), 'x')
    const result = await worker.persist(['--json', '-q', '-m', '{"a": "ü"}', 'f'])
    const record = JSON.parse(result.stdout) as ResultRecord
    expect(result.stdout.endsWith('\n')).toBe(true)
    expect([record]).toEqual(await worker.records())
  })

  it('lists a task: keys in order, or records', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    await writeFile(join(worker.folder, 'f'), 'x')
    expect(await worker.persist(['--list'])).toMatchObject({ status: 0, stdout: '', stderr: '' })
    const keys: string[] = []
    for (const name of ['b', 'a', '\u{1f600}', '\u{ff5e}']) {
      keys.push((await worker.persist(['-q', '-n', name, 'f'])).key)
    }
    await worker.persist(['-q', '-t', 'another', 'f'])
    keys.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    expect((await worker.persist(['--list'])).stdout).toBe(`${keys.join('\n')}\n`)
    expect((await worker.persist(['--list', worker.taskId])).stdout).toBe(`${keys.join('\n')}\n`)
    expect((await worker.persist(['--list', 'another'])).stdout).toMatch(/^another\/\S+-f\n$/)
    const records = (await worker.persist(['--list', '--json'])).stdout.trimEnd().split('\n')
    expect(records.map((line) => (JSON.parse(line) as ResultRecord).key)).toEqual(keys)
  })

  it('does not list a body without its record, nor a record without its body', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    await writeFile(join(worker.folder, 'f'), 'x')
    const { key } = await worker.persist(['-q', 'f'])
    const task = join(worker.localDir, worker.taskId)
    await writeFile(join(task, '20260101-000000-claimed'), '')
    await writeFile(join(task, '.tmp-1-abc'), 'half')
    await writeFile(
      join(task, '20260101-000000-gone.meta.json'),
      await readFile(join(worker.localDir, `${key}.meta.json`)),
    )
    await writeFile(join(task, '20260101-000000-broken.meta.json'), '{"v":1')
    expect((await worker.persist(['--list'])).stdout).toBe(`${key}\n`)
  })

  it('retrieves into a file, and refuses bytes that are not those that were stored', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    await writeFile(join(worker.folder, 'f'), 'exactly this')
    const { key } = await worker.persist(['-q', 'f'])
    expect(await worker.persist(['--retrieve', key, '-o', 'copy'])).toMatchObject({ status: 0, stdout: '' })
    expect(await readFile(join(worker.folder, 'copy'), 'utf8')).toBe('exactly this')
    await writeFile(join(worker.localDir, key), 'exactly that')
    const stdout = await worker.persist(['--retrieve', key])
    expect(stdout).toMatchObject({ status: 1, stdout: '' })
    expect(stdout.stderr).toMatch(/not those that were stored/)
    expect((await worker.persist(['--retrieve', key, '-o', 'copy'])).status).toBe(1)
    expect(await readFile(join(worker.folder, 'copy'), 'utf8')).toBe('exactly this')
  })

  it('ends with 1 for a key that nobody has', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    const result = await worker.persist(['--retrieve', `${worker.taskId}/20260114-120000-output.json`])
    expect(result).toMatchObject({ status: 1, stdout: '' })
    expect(result.stderr).toMatch(ONE_LINE)
  })

  it('archives a directory: names under its own, links as links, empty folders, modes and times', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    const tree = join(worker.folder, 'my results')
    await mkdir(join(tree, 'sub/empty'), { recursive: true })
    await writeFile(join(tree, 'ü.txt'), 'umlaut')
    await writeFile(join(tree, 'sub', `${'long'.repeat(40)}.txt`), 'long name')
    await writeFile(join(tree, 'run.sh'), '#!/bin/sh\n')
    await chmod(join(tree, 'run.sh'), 0o755)
    await utimes(join(tree, 'run.sh'), 1_700_000_000, 1_700_000_000)
    await symlink('../nowhere', join(tree, 'link'))
    const result = await worker.persist(['-q', './my results/'])
    expect(result.status).toBe(0)
    expect(result.stdout).toMatch(/-my results\.tar\.gz\n$/)
    const [record] = await worker.records()
    expect(record).toMatchObject({ archive: 'tar.gz', content_type: 'application/gzip' })
    const list = await exec(
      'tar',
      ['tvzf', join(worker.localDir, result.key), '--full-time', '--quoting-style=literal'],
      {
        env: { ...process.env, TZ: 'UTC', LC_ALL: 'C.UTF-8' },
      },
    )
    const names = list.stdout
      .trimEnd()
      .split('\n')
      .map((line) => line.replace(/^.*\d\d:\d\d:\d\d /, ''))
    expect(names).toEqual([
      'my results/',
      'my results/link -> ../nowhere',
      'my results/run.sh',
      'my results/sub/',
      'my results/sub/empty/',
      `my results/sub/${'long'.repeat(40)}.txt`,
      'my results/ü.txt',
    ])
    expect(list.stdout).toMatch(/^-rwxr-xr-x .* 2023-11-14 22:13:20 my results\/run\.sh$/m)
    await mkdir(join(worker.folder, 'out'))
    await exec('tar', ['xzf', join(worker.localDir, result.key), '-C', join(worker.folder, 'out')])
    await exec('diff', ['-r', '--no-dereference', tree, join(worker.folder, 'out/my results')])
  })

  it('archives the same tree to the same bytes, and names it as told', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    await mkdir(join(worker.folder, 'd'))
    await writeFile(join(worker.folder, 'd/a'), 'a')
    const one = await worker.persist(['-q', 'd', '--name', 'final'])
    const two = await worker.persist(['-q', join(worker.folder, 'd'), '--name', 'final.tar.gz'])
    expect(one.stdout).toMatch(/-final\.tar\.gz\n$/)
    expect(two.stdout).toMatch(/-final\.tar\.gz\n$/)
    const [a, b] = await worker.records()
    expect(a?.sha256).toBe(b?.sha256)
  })

  it('leaves sockets and pipes out of an archive, and says so', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    await mkdir(join(worker.folder, 'd'))
    await writeFile(join(worker.folder, 'd/a'), 'a')
    await exec('mkfifo', [join(worker.folder, 'd/pipe')])
    const result = await worker.persist(['d'])
    expect(result.status).toBe(0)
    expect(result.stderr).toMatch(/d\/pipe: .*pipe/)
    const list = await exec('tar', ['tzf', join(worker.localDir, result.key)])
    expect(list.stdout).toBe('d/\nd/a\n')
  })

  it('says which implementation it is', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget)
    const version = await worker.persist(['--version'])
    expect(version).toMatchObject({ status: 0, stderr: '' })
    expect(version.stdout).toMatch(/^persist-result \d+\.\d+\.\d+ \((node|sh)\b.*\)\n$/)
    const help = await worker.persist(['--help'])
    expect(help).toMatchObject({ status: 0, stderr: '' })
    expect(help.stdout).toMatch(/^Usage: persist-result/)
  })
})
