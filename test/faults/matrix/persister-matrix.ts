import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Checker } from '../checker.js'
import { knownBytes, knownFiles } from '../content.js'
import { type Copy, countOpenUploads, visitBucket, visitFolder } from '../copies.js'
import type { AcknowledgedResult, Outcome } from '../messages.js'
import { contentLabel, metadataOf, type Operation, planOperation } from '../plan.js'
import { plainClient, type S3Backend } from '../s3-backend.js'

/** Which of the two programs is killed. */
export type Program = 'node' | 'sh'

/** What is killed at every step. */
export interface Scenario {
  readonly name: string
  /** What lies in the spool before: results that no store has. */
  readonly pendingBefore: boolean
  /** What the killed call is: storing something, or delivering what is pending. */
  readonly call: 'store' | 'flush' | 'drain'
  /** Whether stores can be reached during the killed call; afterwards they can. */
  readonly remote: boolean
}

/** Every call of the persister that writes. */
export const SCENARIOS: readonly Scenario[] = [
  { name: 'store, S3 up', pendingBefore: false, call: 'store', remote: true },
  { name: 'store, S3 down', pendingBefore: false, call: 'store', remote: false },
  { name: 'store with a result pending', pendingBefore: true, call: 'store', remote: true },
  { name: 'flush', pendingBefore: true, call: 'flush', remote: true },
  { name: 'drain', pendingBefore: true, call: 'drain', remote: true },
]

/** What became of one scenario. */
export interface MatrixReport {
  readonly name: string
  /** Steps of a call that nobody kills. */
  readonly steps: number
  /** Kills that came about. */
  readonly kills: number
  readonly problems: string[]
}

/** What the matrix needs. */
export interface MatrixOptions {
  readonly seed: number
  readonly s3: S3Backend
  readonly distribution: string
  readonly hooks: { readonly node: string; readonly shell: string }
  /** Kill at each step whose number, with an offset that the seed decides, is divisible by this. */
  readonly every: number
}

interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Kills a program at one step after the other; each time a second call finishes what is left, and everything is checked. */
export async function killAtEveryStep(
  program: Program,
  scenario: Scenario,
  options: MatrixOptions,
): Promise<MatrixReport> {
  const name = `${program}: ${scenario.name}`
  const problems: string[] = []
  const steps = await new Trial(program, scenario, options, 0).countSteps()
  const chosen = steps.filter((_, i) => (i + options.seed) % options.every === 0)
  let kills = 0
  for (const [i, step] of chosen.entries()) {
    const trial = new Trial(program, scenario, options, i + 1)
    const { problems: found, wasKilled } = await trial.killAt(step)
    if (wasKilled) kills++
    for (const problem of found) problems.push(`killed at step ${step}: ${problem}`)
  }
  // Steps differ from run to run, such as how often a socket is read or a connection is tried again, and a call may
  // be through before the step it should have died at; a hook that misses nearly always is another matter.
  const missed = chosen.length - kills
  if (missed > Math.max(1, chosen.length * 0.2))
    problems.push(`only ${kills} of ${chosen.length} kills came about`)
  return { name, steps: steps.length, kills, problems }
}

/** One kill, in a task and a spool of its own. */
class Trial {
  readonly #program: Program
  readonly #scenario: Scenario
  readonly #options: MatrixOptions
  readonly #taskId: string
  readonly #outcomes: Outcome[] = []
  #folder = ''
  #operations = 0

  constructor(program: Program, scenario: Scenario, options: MatrixOptions, number: number) {
    this.#program = program
    this.#scenario = scenario
    this.#options = options
    const slug = scenario.name.replace(/\W+/g, '-')
    this.#taskId = `${program}-${slug}-${options.every}-${number}`
  }

  /** Runs the call to its end and gives the names of its steps. */
  async countSteps(): Promise<string[]> {
    return await this.#inFolder(async (folder) => {
      const file = join(folder, 'steps')
      await this.#prepare()
      const ended = await this.#callHooked(
        this.#program === 'sh' ? { LAB_STEPS: file } : { LAB_COUNT_FILE: file },
      )
      if (ended.code !== 0) throw new Error(`without a kill it ended with ${ended.code}: ${ended.stderr}`)
      const text = await readFile(file, 'utf8')
      if (this.#program === 'node') return Array.from({ length: Number(text) }, (_, i) => String(i + 1))
      return [...new Set(text.trim().split('\n'))]
    })
  }

  async killAt(step: string): Promise<{ problems: string[]; wasKilled: boolean }> {
    return await this.#inFolder(async (folder) => {
      await this.#prepare()
      const killed = await this.#callHooked({ LAB_KILL_AT: step })
      const problems: string[] = []
      if (killed.code !== null && killed.code !== 0)
        problems.push(`ended with ${killed.code}: ${killed.stderr}`)
      if (killed.code === 0) this.#noteAcknowledged(killed.stdout)
      // Whoever comes next need not be of the same make.
      const other: Program = this.#program === 'node' ? 'sh' : 'node'
      const flushed = await this.#run(other, ['--flush', '--quiet'], this.#environment(true))
      if (flushed.code !== 0)
        problems.push(`the flush after it ended with ${flushed.code}: ${flushed.stderr}`)
      const again = await this.#store(this.#program, true)
      if (again.code !== 0) problems.push(`storing after it ended with ${again.code}: ${again.stderr}`)
      problems.push(...(await this.#check(folder)))
      return { problems, wasKilled: killed.code === null }
    })
  }

  async #inFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
    this.#folder = await mkdtemp(join(tmpdir(), 'faults-matrix-'))
    try {
      return await use(this.#folder)
    } finally {
      await rm(this.#folder, { recursive: true, force: true })
    }
  }

  async #prepare(): Promise<void> {
    if (!this.#scenario.pendingBefore) return
    for (const program of ['node', 'sh'] as const) {
      const stored = await this.#store(program, false)
      if (stored.code !== 0) throw new Error(`cannot prepare: ${stored.stderr}`)
    }
  }

  #callHooked(hook: Readonly<Record<string, string>>): Promise<Ended> {
    const { call, remote } = this.#scenario
    const environment = { ...this.#environment(remote), ...hook }
    if (call === 'store') return this.#storeWith(this.#program, environment, true)
    const args = call === 'flush' ? ['--flush', '--quiet'] : ['drain', '--json']
    return this.#run(this.#program, args, environment, true)
  }

  async #store(program: Program, remote: boolean): Promise<Ended> {
    const ended = await this.#storeWith(program, this.#environment(remote), false)
    if (ended.code === 0) this.#noteAcknowledged(ended.stdout)
    return ended
  }

  /** Every other one is a directory. */
  async #storeWith(program: Program, env: Readonly<Record<string, string>>, hooked: boolean): Promise<Ended> {
    const { seed } = this.#options
    const operation = this.#plan(this.#operations++)
    const label = contentLabel(seed, operation.number, 0)
    const path = join(this.#folder, `source-${operation.number}-0`)
    if (operation.shape === 'directory') {
      for (const file of knownFiles(label, operation.sizeBytes)) {
        await mkdir(join(path, file.path, '..'), { recursive: true })
        await writeFile(join(path, file.path), file.bytes)
      }
    } else await writeFile(path, knownBytes(label, operation.sizeBytes))
    const metadata = JSON.stringify(metadataOf({ ...operation, bigMetadata: false }, seed, 0))
    const args = ['--json', '--quiet', '--name', 'same name', '--metadata', metadata, path]
    return await this.#run(program, args, env, hooked)
  }

  /** The first plan with a given number, or beyond it, that makes a file of some size. */
  #plan(index: number): Operation {
    let number = index * 1000
    for (;;) {
      const operation = planOperation(this.#options.seed, number)
      if (operation.shape !== 'stdin' && operation.sizeBytes > 100 && operation.sizeBytes < 64_000)
        return operation
      number++
    }
  }

  #noteAcknowledged(stdout: string): void {
    const line = stdout.trim().split('\n')[0] ?? ''
    if (!line.startsWith('{"v":1,"task_id"')) return
    const record = JSON.parse(line) as AcknowledgedResult & { metadata: { operation: number } }
    this.#outcomes.push({
      taskId: this.#taskId,
      operation: record.metadata.operation,
      attempt: 0,
      via: this.#program,
      fault: 'kill',
      status: 'acknowledged',
      result: record,
    })
  }

  #environment(remote: boolean): Record<string, string> {
    const { s3 } = this.#options
    return {
      PATH: process.env.PATH ?? '',
      WORKER_ID: this.#taskId,
      WORKER_RESULTS_LOCAL_DIR: join(this.#folder, 'spool'),
      WORKER_RESULTS_DEADLINE_SECONDS: '1',
      WORKER_RESULTS_S3_BUCKET: s3.bucket,
      WORKER_RESULTS_S3_PREFIX: 'matrix',
      // Nobody listens at port 1.
      AWS_ENDPOINT_URL_S3: remote ? s3.url() : 'http://127.0.0.1:1',
      AWS_REGION: s3.region,
      AWS_ACCESS_KEY_ID: s3.credentials.accessKeyId,
      AWS_SECRET_ACCESS_KEY: s3.credentials.secretAccessKey,
    }
  }

  async #run(
    program: Program,
    args: readonly string[],
    env: Readonly<Record<string, string>>,
    hooked = false,
  ): Promise<Ended> {
    const { distribution, hooks } = this.#options
    const words =
      program === 'node'
        ? ['node', ...(hooked ? ['--require', hooks.node] : []), `${distribution}/persist-result.js`]
        : hooked
          ? ['bash', hooks.shell, `${distribution}/persist-result.sh`]
          : ['sh', `${distribution}/persist-result.sh`]
    const [file = '', ...rest] = [...words, ...args]
    const child = spawn(file, rest, {
      env,
      cwd: this.#folder,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const stdout: Buffer[] = []
    const stderr: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk))
    return await new Promise((done, fail) => {
      child.once('error', fail)
      child.once('close', (code) =>
        done({
          code,
          stdout: Buffer.concat(stdout).toString(),
          stderr: Buffer.concat(stderr).toString().slice(-400),
        }),
      )
    })
  }

  /** Everything of the task that S3 and the spool have, compared with what was acknowledged. */
  async #check(folder: string): Promise<string[]> {
    const checker = new Checker({
      seed: this.#options.seed,
      outcomes: this.#outcomes,
      receipts: new Map(),
      manifests: new Map(),
      outputs: new Set(),
      vanished: new Set(),
    })
    const inS3 = new Set<string>()
    const inSpool = new Set<string>()
    const visit = async (copy: Copy): Promise<void> => {
      ;(copy.place === 's3' ? inS3 : inSpool).add(copy.key)
      await checker.visit(copy)
    }
    const client = plainClient(this.#options.s3)
    try {
      const { bucket } = this.#options.s3
      const { problems } = await visitBucket(client, bucket, 'matrix', visit, `${this.#taskId}/`)
      problems.push(...(await visitFolder(join(folder, 'spool'), 'volume', visit)).problems)
      const { lost, corrupt, duplicated, contradictions } = checker.conclude()
      const apart = [...inSpool].filter((key) => !inS3.has(key)).map((key) => `${key} is only in the spool`)
      const strange = [...inS3].filter((key) => !inSpool.has(key)).map((key) => `${key} is only in S3`)
      const open = await countOpenUploads(client, bucket)
      return [
        ...problems,
        ...lost.map((line) => `lost: ${line}`),
        ...corrupt.map((line) => `corrupt: ${line}`),
        ...duplicated.map((line) => `duplicated: ${line}`),
        ...contradictions,
        ...apart,
        ...strange,
        ...(open > 0 ? [`${open} uploads are open`] : []),
      ]
    } finally {
      client.destroy()
    }
  }
}
