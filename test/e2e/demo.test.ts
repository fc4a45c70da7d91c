import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { makeTempDir } from '../support/temp-dir.js'
import { watchDescendants } from './descendants.js'

const DEMO = fileURLToPath(new URL('../../examples/demo/main.js', import.meta.url))

const WORKERS = [
  { name: 'weather', outcome: 'succeeded', exitCode: 0, results: ['statistics.json'] },
  {
    name: 'word-counts',
    outcome: 'succeeded',
    exitCode: 0,
    results: [
      'checkpoint-1.json',
      'checkpoint-2.json',
      'checkpoint-3.json',
      'checkpoint-4.json',
      'word-counts.json',
    ],
  },
  { name: 'plots', outcome: 'succeeded', exitCode: 0, results: ['plots.tar.gz'] },
  { name: 'invoices', outcome: 'failed', exitCode: 1, results: ['error.json', 'partial-totals.json'] },
]

interface DemoRun {
  readonly exitCode: number | null
  readonly stdout: string
  readonly stderr: string
  /** Descendants seen while it ran. */
  readonly processCount: number
  /** Those of them that are still there. */
  readonly processesLeft: readonly string[]
  readonly filesLeft: readonly string[]
}

/** Runs the demo in an environment that holds nothing of this machine's own settings. */
async function runDemo(
  words: readonly string[],
  env: Readonly<Record<string, string>> = {},
  onStderr: (text: string, interrupt: () => void) => void = () => {},
): Promise<DemoRun> {
  await using temporary = await makeTempDir()
  const { PATH = '', HOME = '' } = process.env
  const demo = spawn(process.execPath, [DEMO, ...words], {
    env: {
      PATH,
      HOME,
      TMPDIR: temporary.path,
      AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const descendants = watchDescendants(demo.pid ?? 0)
  try {
    demo.stderr.on('data', (chunk: Buffer) => onStderr(chunk.toString(), () => demo.kill('SIGINT')))
    const [stdout, stderr, [exitCode]] = await Promise.all([
      text(demo.stdout),
      text(demo.stderr),
      once(demo, 'close') as Promise<[number | null]>,
    ])
    return {
      exitCode,
      stdout,
      stderr,
      processCount: descendants.count,
      processesLeft: await descendants.alive(),
      filesLeft: await readdir(temporary.path),
    }
  } finally {
    descendants.stop()
    demo.kill('SIGKILL')
  }
}

it.each([
  { isolation: 'auto', flags: [] },
  { isolation: 'plain', flags: ['--isolation', 'plain'] },
])(
  'the demo lists, fetches and verifies everything, and leaves nothing (isolation $isolation)',
  async ({ flags }) => {
    const run = await runDemo(['--json', ...flags])
    expect(run, run.stderr).toMatchObject({ exitCode: 0, processesLeft: [], filesLeft: [] })
    expect(run.processCount).toBeGreaterThan(WORKERS.length)

    expect(run.stdout).toMatch(/^[^\n]+\n$/)
    const report = JSON.parse(run.stdout)
    expect(Object.keys(report)).toEqual(['ok', 'workers', 'results', 'checks'])
    expect(report.ok).toBe(true)
    const prefix = /^demo-[0-9a-f]{6}-/
    expect(
      report.workers.map((worker: { taskId: string }) => ({
        ...worker,
        taskId: worker.taskId.replace(prefix, ''),
      })),
    ).toEqual(WORKERS.map(({ name, outcome, exitCode }) => ({ taskId: name, outcome, exitCode })))
    for (const result of report.results) {
      expect(result).toEqual({
        key: expect.stringMatching(/^demo-[0-9a-f]{6}-[a-z-]+\/\d{8}-\d{6}-[a-z0-9.-]+$/),
        taskId: result.key.split('/')[0],
        tiers: ['s3'],
        sizeBytes: expect.any(Number),
        sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
        verified: true,
      })
      expect(result.sizeBytes).toBeGreaterThan(0)
    }
    const names = report.results.map(({ key }: { key: string }) =>
      key.replace(prefix, '').replace(/\/\d{8}-\d{6}-/, '/'),
    )
    expect(names.toSorted()).toEqual(
      WORKERS.flatMap(({ name, results }) => results.map((result) => `${name}/${result}`)).toSorted(),
    )
    expect(report.checks).toHaveLength(7)
    for (const check of report.checks) expect(check).toEqual({ name: expect.any(String), ok: true })
  },
)

it('the demo cleans up when it is interrupted', async () => {
  let interrupted = false
  const run = await runDemo(['--json'], {}, (line, interrupt) => {
    // Once: a second interrupt means to end at once, whatever is left.
    if (interrupted || !line.includes('running')) return
    interrupted = true
    interrupt()
  })
  expect(run, run.stderr).toMatchObject({ exitCode: 130, processesLeft: [], filesLeft: [] })
  expect(JSON.parse(run.stdout)).toMatchObject({ ok: false })
  expect(run.processCount).toBeGreaterThan(0)
})

it.each([
  {
    words: ['--live'],
    env: { E2B_API_KEY: 'k', AWS_ACCESS_KEY_ID: '' },
    says: '--live needs WORKER_RESULTS_S3_BUCKET, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY in the environment',
  },
  {
    words: ['--isolation', 'glass'],
    env: {},
    says: '--isolation must be one of auto, namespaces, plain (got "glass")',
  },
  { words: ['--fast'], env: {}, says: "Unknown option '--fast'; --help shows what there is" },
])('the demo refuses $words in one line', async ({ words, env, says }) => {
  const run = await runDemo(words, env)
  expect(run).toMatchObject({ exitCode: 2, stdout: '', stderr: `demo: ${says}\n` })
})
