import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parseDrainReport, parseRecord } from '../../../src/protocol/parse.js'
import { BUNDLE, run } from '../../support/persister/program.js'
import { scratch } from '../../support/persister/scratch.js'
import { SCRIPT, shells } from './shells.js'

const node = [process.execPath, BUNDLE]
const NAMES = [
  'plain.txt',
  'a b',
  `ünï "q" $(id) 'x' *?[a] \\ 日本 \u{1f600}`,
  '-n',
  '~',
  'é'.repeat(120),
  "it's.json",
]
const METADATA = [{}, { a: 'two  blanks', 'ключ "': ['\\', '\n', null, 1e21] }, { big: "ü'".repeat(3000) }]

describe.each(shells)('one spool, Node and $name', ({ argv }) => {
  const shell = [...argv, SCRIPT]

  it('each lists and retrieves what the other stored, to the same words', async (test) => {
    const env = { WORKER_RESULTS_LOCAL_DIR: await scratch(test), WORKER_ID: 't' }
    const contents = new Map<string, string>()
    for (const [i, name] of NAMES.entries()) {
      for (const program of [node, shell]) {
        const input = `${name} ${program.length}`
        const metadata = JSON.stringify(METADATA[i % METADATA.length])
        const { key, status } = await run([...program, '-q', '-', `--name=${name}`, '-m', metadata], {
          env,
          input,
        })
        expect(status).toBe(0)
        contents.set(key, input)
      }
    }
    const [byNode, byShell] = await Promise.all(
      [node, shell].map((program) => run([...program, '--list', '--json'], { env })),
    )
    expect(byShell?.stdout).toBe(byNode?.stdout)
    expect(
      byNode?.stdout
        .trimEnd()
        .split('\n')
        .map((line) => parseRecord(line).key)
        .sort(),
    ).toEqual([...contents.keys()].sort())
    for (const [key, content] of contents) {
      for (const program of [node, shell]) {
        expect(await run([...program, '--retrieve', key], { env })).toMatchObject({
          status: 0,
          stdout: content,
          stderr: '',
        })
      }
    }
  })

  it('describes the same file in the same record, but for its times', async (test) => {
    const folder = await scratch(test)
    const env = { WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool'), WORKER_ID: 't' }
    const endings = [
      '',
      'x',
      'json',
      'TXT',
      'tar.gz',
      'tgz',
      'md',
      'Png',
      'jpeg',
      'parquet',
      'ipynb',
      'mjs',
      'log',
      'unknown',
      'yml',
      'xlsx',
      'zst',
      'svg',
      'sqlite',
      'bz2',
      'diff',
      'wav',
      'toml',
    ]
    const files = endings.map((ending) => join(folder, `f.${ending}`))
    for (const file of files) await writeFile(file, 'x')
    const records = await Promise.all(
      [node, shell].map(async (program, i) => {
        const { stdout } = await run([...program, '-q', '--json', '-t', `t${i}`, ...files], { env })
        return stdout
          .trimEnd()
          .split('\n')
          .map((line) => {
            const {
              created_at: _created,
              timestamp: _timestamp,
              key: _key,
              task_id: _task,
              ...rest
            } = parseRecord(line)
            return rest
          })
      }),
    )
    expect(records[0]).toHaveLength(files.length)
    expect(records[1]).toEqual(records[0])
  })

  it('says the same about itself', async () => {
    const [ours, theirs] = await Promise.all([run([...shell, '--help']), run([...node, '--help'])])
    expect(ours.stdout).toBe(theirs.stdout)
    const { version } = JSON.parse(
      await readFile(new URL('../../../package.json', import.meta.url), 'utf8'),
    ) as { version: string }
    expect((await run([...shell, '--version'])).stdout).toBe(`persist-result ${version} (sh)\n`)
  })

  it('each keeps to the seal that the other set', async (test) => {
    const folder = await scratch(test)
    const env = { WORKER_RESULTS_LOCAL_DIR: folder, WORKER_ID: 't' }
    const store = (program: readonly string[]) => run([...program, '-q', '-', '-n', 'x'], { env, input: 'x' })
    for (const [sealer, other] of [
      [node, shell],
      [shell, node],
    ] as const) {
      const fence = join(folder, '.worker/t/finishing-a')
      await mkdir(dirname(fence), { recursive: true })
      await writeFile(fence, (await readFile('/proc/uptime', 'utf8')).replace(/\..*/s, '\n'))
      expect(await run([...sealer, 'drain', '--seal', 'a', '--json'], { env })).toMatchObject({ status: 0 })
      for (const program of [sealer, other]) {
        const refused = await store(program)
        expect(refused).toMatchObject({ status: 1, stdout: '' })
        expect(refused.stderr).toMatch(/is being terminated/)
      }
      await rm(fence)
      expect((await store(sealer)).status).toBe(0)
    }
  })

  it('drains to a report that the conductor can read, whatever lies in the spool', async (test) => {
    const folder = await scratch(test)
    const spool = join(folder, 'spool')
    const env = { WORKER_RESULTS_LOCAL_DIR: spool, WORKER_ID: 't' }
    await writeFile(join(folder, 'out"put é.txt'), 'x')
    const { key } = await run([...shell, '-q', 'out"put é.txt'], { env, cwd: folder })
    const record = await readFile(join(spool, `${key}.meta.json`), 'utf8')
    const hostile: Record<string, string> = {
      '20260101-000000-a': record,
      '20260101-000000-b': '',
      '20260101-000000-c': '{"v":1}',
      '20260101-000000-d': record.trimEnd().slice(0, -1),
      '20260101-000000-e': `${record.trimEnd()},`,
      '20260101-000000-f\n{"v":1,': record,
      '20260101-000000-g': `[${record}]`,
      '20260101-000000-h': '[[[['.repeat(1000),
    }
    for (const [name, text] of Object.entries(hostile)) {
      await writeFile(join(spool, 't', name), 'x')
      await writeFile(join(spool, 't', `${name}.meta.json`), text)
    }
    const outputs = ['out"put é.txt', join(folder, 'missing\n"x'), '/dev/null/x']
    for (const program of [shell, node]) {
      const drained = await run(
        [...program, 'drain', '--json', ...outputs.flatMap((path) => ['--output', path])],
        { env, cwd: folder },
      )
      expect(drained.status).toBe(0)
      expect(drained.stdout.match(/\n/g)).toHaveLength(1)
      const report = parseDrainReport(drained.stdout)
      expect(report.records.map((entry) => entry.key)).toEqual([key])
      expect(report.outputs.map(({ status }) => status)).toEqual(['unchanged', 'missing', 'missing'])
      expect(report.outputs[0]).toEqual({ path: outputs[0], status: 'unchanged', key, error: null })
    }
    expect((await readdir(join(spool, 't'))).filter((name) => name.startsWith('.tmp-'))).toEqual([])
  })
})
