import { execFile } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import type * as built from '../../../src/persister/persist-result.js'
import { BUNDLE, bareEnvironment, DISTRIBUTION } from '../../support/persister/program.js'
import { type Cleanup, scratch } from '../../support/persister/scratch.js'

const exec = promisify(execFile)
const { persistResult, listResults, retrieveResult, flush } = createRequire(import.meta.url)(
  BUNDLE,
) as typeof built

interface Place {
  readonly folder: string
  readonly options: { env: Record<string, string>; warn: (line: string) => void }
  readonly remarks: string[]
}

async function makePlace(test: Cleanup): Promise<Place> {
  const folder = await scratch(test)
  const remarks: string[] = []
  const env = { WORKER_ID: 'worker-123', WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool') }
  return { folder, remarks, options: { env, warn: (line) => remarks.push(line) } }
}

describe('the module', () => {
  it('runs the snippet of the guide, required by its bare name', async (test) => {
    const { folder, options } = await makePlace(test)
    await mkdir(join(folder, 'workspace'))
    await writeFile(join(folder, 'workspace/output.json'), '{}')
    const script = `
      const { persistResult, listResults, retrieveResult } = require('persist-result.js');
      (async () => {
        await persistResult('${folder}/workspace/output.json', {
          name: 'final-report', metadata: { status: 'complete', version: '1.0' }, taskId: 'worker-123'
        });
        await persistResult('{"result": "success"}', { name: 'status.json' });
        const buffer = Buffer.from('binary data');
        await persistResult(buffer, { name: 'data.bin', contentType: 'application/octet-stream' });
        const results = await listResults('worker-123');
        const content = await retrieveResult(results.find((r) => r.name === 'status.json').key);
        console.log(JSON.stringify({ names: results.map((r) => r.name).sort(), content: content.toString() }));
      })();`
    const { stdout, stderr } = await exec(process.execPath, ['-e', script], {
      env: bareEnvironment({ ...options.env, NODE_PATH: DISTRIBUTION }),
    })
    expect(JSON.parse(stdout)).toEqual({
      names: ['data.bin', 'final-report', 'status.json'],
      content: '{"result": "success"}',
    })
    expect(stderr).toBe('')
  })

  it("runs the guide's commands by the names persist-result and persist-result.js", async (test) => {
    const { folder, options } = await makePlace(test)
    const script = `
      set -e
      echo '{}' > output.json; echo pdf > report.pdf; mkdir -p results-directory; echo x > results-directory/x
      K=$(persist-result output.json)
      persist-result --name "final-report" --metadata '{"status":"complete","version":"1.0"}' report.pdf
      persist-result --task-id worker-123 ./results-directory
      persist-result --metadata '{
        "status": "complete",
        "duration_ms": 45000
      }' output.json
      persist-result.js --list worker-123 | wc -l
      persist-result.js --retrieve "$K" > copy.json
      cmp output.json copy.json`
    const env = bareEnvironment({ ...options.env, PATH: `${DISTRIBUTION}:${process.env.PATH}` })
    const { stdout } = await exec('bash', ['-c', script], { cwd: folder, env })
    expect(stdout.trimEnd().split('\n').at(-1)?.trim()).toBe('4')
  })

  it('is imported by its names from an ES module', async (test) => {
    const { folder, options } = await makePlace(test)
    const script = `import { persistResult, flush } from '${BUNDLE}'
      const { key } = await persistResult('x y', { name: 'n' }); console.log(key, (await flush()).pending.length)`
    await writeFile(join(folder, 'worker.mjs'), script)
    const { stdout } = await exec(process.execPath, [join(folder, 'worker.mjs')], {
      env: bareEnvironment(options.env),
    })
    expect(stdout).toMatch(/^worker-123\/\S+-n 1\n$/)
  })

  it('stores strings, bytes and streams', async (test) => {
    const { options } = await makePlace(test)
    const inputs = [
      ['text "with" quotes\n', 'text "with" quotes\n'],
      [new Uint8Array([0, 255, 128]), Buffer.from([0, 255, 128])],
      [new Uint8Array(0), Buffer.alloc(0)],
      [Readable.from(['ü', Buffer.from('b')]), Buffer.from('üb')],
      ['{"json": true}', Buffer.from('{"json": true}')],
      ['https://example.com/page.html', Buffer.from('https://example.com/page.html')],
      ['', Buffer.alloc(0)],
    ] as const
    for (const [input, bytes] of inputs) {
      const record = await persistResult(input, { ...options, name: 'c.txt' })
      expect(await retrieveResult(record.key, options)).toEqual(Buffer.from(bytes))
    }
    expect(await listResults(undefined, options)).toHaveLength(inputs.length)
    expect((await flush(options)).pending).toHaveLength(inputs.length)
  })

  it('takes a string that looks like a path for one, unless told otherwise', async (test) => {
    const { folder, options } = await makePlace(test)
    const mistyped = join(folder, 'output.json')
    for (const path of [mistyped, './x', '../y/z.csv', 'report.pdf', 'out/report']) {
      await expect(persistResult(path, { ...options, name: 'n' })).rejects.toMatchObject({
        code: 'NOT_FOUND',
      })
    }
    await expect(persistResult('some words', options)).rejects.toMatchObject({ code: 'NOT_FOUND' })
    await expect(persistResult('x y', { ...options, as: 'path' })).rejects.toMatchObject({
      code: 'NOT_FOUND',
    })
    const stored = await persistResult(mistyped, { ...options, name: 'n', as: 'content' })
    expect((await retrieveResult(stored.key, options)).toString()).toBe(mistyped)
    expect(await readFile(join(folder, 'spool', `${stored.key}.meta.json`), 'utf8')).toMatch(/^\{.*\}\n$/)
  })

  it('rejects bad options with a code, and stores nothing', async (test) => {
    const { options } = await makePlace(test)
    const circular: Record<string, unknown> = {}
    circular.self = circular
    let deep: object = {}
    for (let level = 1; level < 101; level++) deep = { deep }
    let deepest = deep
    for (let level = 0; level < 20_000; level++) deepest = [deepest]
    const bad = [
      { name: 'a/b' },
      { name: 'n', taskId: '../up' },
      { name: 'n', metadata: [1] },
      { name: 'n', metadata: circular },
      { name: 'n', metadata: { big: 1n } },
      { name: 'n', metadata: deep },
      { name: 'n', contentType: 'nonsense' },
    ]
    for (const extra of bad) {
      const call = persistResult(Buffer.from('x'), { ...options, ...extra })
      await expect(call).rejects.toMatchObject({ name: 'ConductorError', code: 'INVALID_OPTION' })
    }
    const call = persistResult(Buffer.from('x'), { ...options, name: 'n', metadata: { deepest } })
    await expect(call).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: 'metadata nests deeper than 100 levels',
    })
    await expect(persistResult(12 as unknown as string, options)).rejects.toMatchObject({
      code: 'INVALID_OPTION',
    })
    expect(await listResults(undefined, options)).toEqual([])
  })

  it('passes on what goes wrong in a stream, and stores nothing', async (test) => {
    const { options } = await makePlace(test)
    async function* broken(): AsyncGenerator<Buffer> {
      yield Buffer.from('half')
      throw new Error('the source broke')
    }
    const call = persistResult(Readable.from(broken()), { ...options, name: 'n' })
    await expect(call).rejects.toThrow(/the source broke/)
    expect(await listResults(undefined, options)).toEqual([])
  })

  it('rejects with UNDELIVERED when it did not get where it had to, though it is stored', async (test) => {
    const { options } = await makePlace(test)
    const call = persistResult(Buffer.from('x'), { ...options, name: 'n', require: 'remote' })
    await expect(call).rejects.toMatchObject({ code: 'UNDELIVERED' })
    expect(await listResults(undefined, options)).toHaveLength(1)
  })
})
