import { once } from 'node:events'
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { listSpool } from '../../src/persister/spool/scan.js'
import { spoolFileName } from '../../src/protocol/spool-layout.js'
import { DISTRIBUTION, type RunResult, run, start } from '../support/persister/program.js'
import { startTestStack, type TestStack } from '../support/stack.js'
import { readArchive } from './read-archive.js'

const EXAMPLES = fileURLToPath(new URL('../../examples', import.meta.url))
const README = fileURLToPath(new URL('../../README.md', import.meta.url))
const PACKAGE = new URL('../../dist/index.js', import.meta.url).href
const CONDUCTOR = join(EXAMPLES, 'conductor.js')
const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))

/** A result as it was read back. */
interface Stored {
  readonly bytes: Buffer
  readonly metadata: unknown
}

interface Example {
  readonly script: string
  readonly command: string
  readonly exitCode: number
  readonly check: (stored: ReadonlyMap<string, Stored>) => void | Promise<void>
}

const TOTALS = 'order,total\n1,9.50\n2,12.00\n3,7.25\n'
const COMPLETE = { status: 'complete', version: '1.0' }

const EXAMPLE_LIST: readonly Example[] = [
  {
    script: 'basic-storage.sh',
    command: 'sh basic-storage.sh',
    exitCode: 0,
    check: (stored) => {
      expect(asText(stored)).toEqual({
        'output.json': { text: '{"result": "success", "orders": 3}\n', metadata: {} },
        'final-report.csv': { text: TOTALS, metadata: COMPLETE },
        'annotated.csv': { text: TOTALS, metadata: { status: 'complete', note: 'it\'s "final"' } },
        'sorted.csv': { text: 'order,total\n3,7.25\n1,9.50\n2,12.00\n', metadata: {} },
        'lines.txt': { text: expect.stringMatching(/^ *4 totals\.csv\n$/), metadata: {} },
      })
    },
  },
  {
    script: 'incremental-checkpoints.js',
    command: 'node incremental-checkpoints.js',
    exitCode: 0,
    check: (stored) => {
      expect(asJson(stored)).toEqual({
        ...Object.fromEntries(
          [1000, 2000, 3000, 4000, 4500].map((done) => [
            `checkpoint-${done}.json`,
            { json: progressAfter(done), metadata: { done, progress: done / 4500 } },
          ]),
        ),
        'summary.json': { json: SUMMARY, metadata: { status: 'complete' } },
      })
    },
  },
  {
    script: 'error-recovery.js',
    command: 'node error-recovery.js',
    exitCode: 1,
    check: (stored) => {
      const failure = {
        error: 'record 3: "many" is not a number',
        stack: expect.stringMatching(/^Error: record 3.*\n +at performTask/),
        timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      }
      expect(asJson(stored)).toEqual({
        'partial.json': { json: { done: 2, sum: 42.5 }, metadata: { done: 2, of: 4 } },
        'error.json': { json: failure, metadata: { status: 'failed' } },
      })
    },
  },
  {
    script: 'multi-file-results.sh',
    command: 'sh multi-file-results.sh',
    exitCode: 0,
    check: async (stored) => {
      expect([...stored.keys()]).toEqual(['final-results.tar.gz'])
      const archive = stored.get('final-results.tar.gz')
      expect(archive?.metadata).toEqual({ files: 3 })
      expect(await readArchive(archive?.bytes ?? Buffer.alloc(0))).toEqual({
        'final-results/output.json': '{"result": "success", "samples": 4}\n',
        'final-results/report.md': '# Report\n\nFour samples, none missing.\n',
        'final-results/tables/data.csv': 'sample,value\n1,4\n2,8\n3,15\n4,16\n',
      })
    },
  },
]

const NUMBERS = Array.from({ length: 4500 }, (_, i) => (i * 7919) % 1009)
const SUMMARY = { count: 4500, mean: progressAfter(4500).sum / 4500, max: 1008 }

function progressAfter(done: number): { done: number; sum: number; max: number } {
  const values = NUMBERS.slice(0, done)
  return { done, sum: values.reduce((sum, value) => sum + value, 0), max: Math.max(...values) }
}

function asText(stored: ReadonlyMap<string, Stored>): object {
  return Object.fromEntries(
    [...stored].map(([name, { bytes, metadata }]) => [name, { text: bytes.toString(), metadata }]),
  )
}

function asJson(stored: ReadonlyMap<string, Stored>): object {
  return Object.fromEntries(
    [...stored].map(([name, { bytes, metadata }]) => [
      name,
      { json: JSON.parse(bytes.toString()) as unknown, metadata },
    ]),
  )
}

describe('in a worker', () => {
  let stack: TestStack | undefined
  beforeAll(async () => {
    stack = await startTestStack()
  })
  afterAll(() => stack?.[Symbol.asyncDispose]())

  const theStack = (): TestStack => {
    if (stack === undefined) throw new Error('the stack starts before the tests')
    return stack
  }

  /** Reads a task as a process does that never saw its worker. */
  async function readBack(taskId: string): Promise<Map<string, Stored>> {
    await using conductor = theStack().conductor()
    const stored = new Map<string, Stored>()
    for await (const result of conductor.results(taskId)) {
      stored.set(result.name, { bytes: Buffer.from(await result.bytes()), metadata: result.metadata })
    }
    return stored
  }

  it.each(EXAMPLE_LIST)('$script', async ({ script, command, exitCode, check }) => {
    await using conductor = theStack().conductor()
    const taskId = script.replace(/\.\w+$/, '')
    const worker = await conductor.spawnWorker({
      taskId,
      files: { [`/workspace/${script}`]: await readFile(join(EXAMPLES, script)) },
    })
    const ran = await worker.run(command)
    expect(ran, ran.stderr).toMatchObject({ exitCode })
    const receipt = await worker.terminate()
    expect(await theStack().sandboxCount()).toBe(0)
    for (const result of receipt.results) expect(result).toMatchObject({ tiers: ['s3'], verified: true })
    await check(await readBack(taskId))
  })

  it('error-recovery.js that is stopped stores what it has', async () => {
    await using conductor = theStack().conductor()
    const records = [{ amount: 1 }, { amount: 2 }, { amount: 3, ms: 600_000 }]
    const worker = await conductor.spawnWorker({
      taskId: 'stopped',
      files: {
        '/workspace/error-recovery.js': await readFile(join(EXAMPLES, 'error-recovery.js')),
        '/workspace/records.json': JSON.stringify(records),
      },
    })
    const half = new Promise<void>((done) => {
      worker.on('stdout', (line) => {
        if (line.includes('2 of 3')) done()
      })
    })
    await worker.start('node error-recovery.js records.json')
    await half
    expect(await worker.terminate()).toMatchObject({ outcome: 'killed', exitCode: 1 })
    expect(asJson(await readBack('stopped'))).toMatchObject({
      'partial.json': { json: { done: 2, sum: 3 }, metadata: { done: 2, of: 3 } },
      'error.json': { json: { error: 'stopped by SIGTERM' }, metadata: { status: 'failed' } },
    })
  })
})

describe('on a laptop', () => {
  /** A folder with the example in it, and what the examples' README says to set. */
  async function makeDesk(script: string) {
    const folder = await mkdtemp(join(tmpdir(), 'stu-example-'))
    onTestFinished(() => rm(folder, { recursive: true, force: true }))
    await copyFile(join(EXAMPLES, script), join(folder, script))
    const localDir = join(folder, 'results')
    const env = {
      PATH: `${DISTRIBUTION}:${process.env.PATH}`,
      WORKER_ID: 'worker-123',
      WORKER_RESULTS_LOCAL_DIR: localDir,
    }
    return {
      folder,
      localDir,
      run: (argv: readonly string[]): Promise<RunResult> => run(argv, { cwd: folder, env }),
      records: () => listSpool(localDir, 'worker-123'),
    }
  }

  /** Stored as the README says; a Node script runs under `persist-result run`, which lets it find the module. */
  function commandLine(command: string): string[] {
    const words = command.split(' ')
    return words[0] === 'node' ? ['persist-result', 'run', '--', ...words] : words
  }

  it.each(EXAMPLE_LIST)('$script', async ({ script, command, exitCode, check }) => {
    const desk = await makeDesk(script)
    const ran = await desk.run(commandLine(command))
    expect(ran, ran.stderr).toMatchObject({ status: exitCode })
    const stored = new Map<string, Stored>()
    for (const { key, name, metadata } of await desk.records()) {
      stored.set(name, { bytes: await readFile(join(desk.localDir, key)), metadata })
    }
    await check(stored)
  })

  it('error-recovery.js whose task succeeds stores only its result', async () => {
    const desk = await makeDesk('error-recovery.js')
    await writeFile(join(desk.folder, 'records.json'), '[{"amount": 1}, {"amount": 2.5}]')
    const ran = await desk.run(commandLine('node error-recovery.js records.json'))
    expect(ran, ran.stderr).toMatchObject({ status: 0 })
    expect((await desk.records()).map(({ name }) => name)).toEqual(['success.json'])
  })

  it('incremental-checkpoints.js goes on where it stopped', async () => {
    const desk = await makeDesk('incremental-checkpoints.js')
    const command = commandLine('node incremental-checkpoints.js')
    const whole = await desk.run(command)
    expect(whole, whole.stderr).toMatchObject({ status: 0 })
    // As if it had been killed after the second checkpoint.
    for (const { timestamp, name } of await desk.records()) {
      if (name === 'checkpoint-1000.json' || name === 'checkpoint-2000.json') continue
      const file = join(desk.localDir, 'worker-123', spoolFileName(timestamp, name))
      await Promise.all([rm(file), rm(`${file}.meta.json`)])
    }
    const again = await desk.run(command)
    expect(again, again.stderr).toMatchObject({
      status: 0,
      stdout: 'going on after 2000 of 4500\n3000 of 4500\n4000 of 4500\n4500 of 4500\n',
    })
    const summary = (await desk.records()).find(({ name }) => name === 'summary.json')
    expect(JSON.parse(await readFile(join(desk.localDir, summary?.key ?? ''), 'utf8'))).toEqual(SUMMARY)
  })
})

it('conductor.js runs all four, and README its first lines, against `stu-conductor local`', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'stu-example-'))
  const env = { AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true' }
  const local = start(['sh', '-c', 'exec "$0" "$1" local > local.env', process.execPath, CLI], {
    cwd: folder,
    env,
  })
  const closed = once(local, 'close')
  try {
    // It says that it runs when all variables are printed.
    let said = ''
    const running = new Promise<void>((done) => {
      local.stderr?.on('data', (chunk: Buffer) => {
        said += chunk.toString()
        if (said.includes('are running')) done()
      })
    })
    await Promise.race([running, closed])
    const ran = await run(['sh', '-c', '. ./local.env && exec "$0" "$1"', process.execPath, CONDUCTOR], {
      cwd: folder,
      env,
    })
    expect(ran, ran.stderr).toMatchObject({ status: 0, stderr: '' })
    const ends = [...ran.stdout.matchAll(/^\w+-([a-z-]+): (\w+), exit (\d)$/gm)].map(([, ...end]) =>
      end.join(' '),
    )
    expect(ends).toEqual([
      'basic-storage succeeded 0',
      'incremental-checkpoints succeeded 0',
      'error-recovery failed 1',
      'multi-file-results succeeded 0',
    ])
    const read = [...ran.stdout.matchAll(/^ {2}(\S+) {2}\d+ bytes {2}\{/gm)].map(([, key]) => key)
    expect(read).toHaveLength(14)
    const announced = [...ran.stdout.matchAll(/^stored: (\S+)$/gm)].map(([, key]) => key)
    expect(announced.toSorted()).toEqual(read.toSorted())
    expect(ran.stdout).toMatch(/Why error-recovery failed: record 3: "many" is not a number\n$/)
    // As printed, but for where the package is.
    const [, printed = ''] = /^```ts\n(import .*?)^```/ms.exec(await readFile(README, 'utf8')) ?? []
    await writeFile(join(folder, 'first.mjs'), printed.replace("'stu-conductor'", JSON.stringify(PACKAGE)))
    const first = await run(['sh', '-c', '. ./local.env && exec "$0" first.mjs', process.execPath], {
      cwd: folder,
      env,
    })
    expect(first, first.stderr).toMatchObject({ status: 0, stderr: '' })
    const listed = [...first.stdout.matchAll(/^worker-123\/[\d-]+-(\S+) \d+ \{.*\} http:\S+$/gm)]
    expect(listed.map(([, name]) => name).toSorted()).toEqual(['plots.tar.gz', 'report.csv', 'summary.json'])
  } finally {
    local.kill('SIGINT')
    await closed
    await rm(folder, { recursive: true })
  }
})
