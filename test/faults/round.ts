import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Adversary, type Victim, volumeOf } from './adversary.js'
import { Checker } from './checker.js'
import { ConductorProcess } from './conductor-process.js'
import { knownLine } from './content.js'
import { countOpenUploads, visitBucket, visitFolder } from './copies.js'
import { markedProcesses } from './leaks.js'
import type { ConductorEvent, LabReceipt, SpawnOrder, WorkerOrder } from './messages.js'
import { planWorker, type WorkerPlan } from './plan.js'
import { Dice } from './random.js'
import type { RoundReport } from './report.js'
import { plainClient } from './s3-backend.js'
import { startWorld, type World } from './world.js'

/** What a round is to do. */
export interface RoundOptions {
  readonly seed: number
  readonly s3: 'local' | 'rgw'
  readonly operations: number
  /** Folder of the bundled programs. */
  readonly programs: string
  /** Workers at once. */
  readonly atOnce: number
  /** How a new conductor goes on; the seed decides where this is left out. */
  readonly takeOver?: 'attach' | 'recover' | undefined
  /** Nothing happens but this: the conductor is killed once all workers run. */
  readonly crashOnly: boolean
  /** No worker is started after so long; undefined means that all operations are done however long that takes. */
  readonly limitMs: number | undefined
  readonly log: (line: string) => void
}

/** A worker that was ordered and has no receipt yet. */
interface Task {
  readonly taskId: string
  readonly plan: WorkerPlan
  readonly operations: readonly number[]
  sandboxId: string | undefined
  exited: boolean
  output: { stdout: string; stderr: string }
  spawn: SpawnOrder | undefined
}

/** Without any report or event for so long, a round is stuck. */
const STUCK_MS = 120_000

/** Runs one round to its end and checks it. */
export async function runRound(options: RoundOptions): Promise<RoundReport> {
  const startedMs = performance.now()
  const world = await startWorld(options.programs, options.seed, options.s3)
  try {
    const round = new Round(options, world)
    const part = await round.run()
    return { ...part, seconds: (performance.now() - startedMs) / 1000 }
  } finally {
    await world[Symbol.asyncDispose]()
  }
}

class Round {
  readonly #options: RoundOptions
  readonly #world: World
  readonly #adversary: Adversary
  readonly #sandboxed: Promise<string>
  /** Numbers of operations that no worker has yet. */
  #open: number[]
  readonly #tasks = new Map<string, Task>()
  readonly #receipts = new Map<string, LabReceipt>()
  readonly #vanished = new Set<string>()
  readonly #problems: Record<string, number> = {}
  readonly #wrongOutputs: string[] = []
  readonly #outputs = new Set<string>()
  readonly #ended = new Set<string>()
  #workers = 0
  #replacing = false
  #replaced = 0
  /** Workers that ended while there was no conductor, and of whose output the next one told nothing. */
  #unheard = 0
  #lastSignOfLifeMs = performance.now()
  readonly #startedMs = performance.now()
  #conductor: ConductorProcess | undefined
  #wake: () => void = () => {}

  constructor(options: RoundOptions, world: World) {
    this.#options = options
    this.#world = world
    this.#open = Array.from({ length: options.operations }, (_, i) => i)
    this.#sandboxed = readFile(join(options.programs, 'sandboxed.cjs'), 'utf8')
    this.#adversary = new Adversary(options.seed, world, {
      running: () => this.#running(),
      vanished: (taskId) => this.#vanished.add(taskId),
      conductor: {
        replace: () => this.#replaceConductor(),
        signal: (signal) => this.#conductor?.signal(signal),
      },
    })
    world.ledger.onReport((report) => {
      this.#lastSignOfLifeMs = performance.now()
      if (report.kind === 'outcome' && !options.crashOnly) this.#adversary.tick()
    })
  }

  async run(): Promise<Omit<RoundReport, 'seconds'>> {
    const { seed, s3 } = this.#options
    this.#world.setConnectionFaults(!this.#options.crashOnly)
    this.#conductor = await this.#startConductor()
    await this.#untilAllDone()
    await this.#adversary.end()
    this.#world.setConnectionFaults(false)
    await this.#conductor.stop()
    const leaked = await this.#findLeaks()
    const { verdict, openUploads, unfinishedFiles } = await this.#check()
    const { outcomes } = this.#world.ledger
    const faults = { ...this.#adversary.faults, ...this.#world.connectionFaults }
    for (const { fault } of outcomes)
      if (fault !== 'none') faults[`${fault} persister`] = (faults[`${fault} persister`] ?? 0) + 1
    return {
      seed,
      s3,
      operations: outcomes.length,
      faults,
      workers: this.#workers,
      verdict,
      leaked,
      openUploads,
      unfinishedFiles,
      problems: this.#problems,
      wrongOutputs: this.#wrongOutputs,
      unheard: this.#unheard,
      notDone: [...this.#adversary.notDone].map(([action, why]) => `${action}: ${why}`),
    }
  }

  #startConductor(): Promise<ConductorProcess> {
    const { env, conductorOptions } = this.#world
    return ConductorProcess.start(
      join(this.#options.programs, 'conductor-main.mjs'),
      env,
      conductorOptions,
      (event) => this.#hear(event),
    )
  }

  #running(): Victim[] {
    return [...this.#tasks.values()].flatMap(({ taskId, sandboxId, plan, exited }) =>
      sandboxId === undefined || exited || this.#vanished.has(taskId) ? [] : [{ taskId, sandboxId, plan }],
    )
  }

  async #untilAllDone(): Promise<void> {
    const { log } = this.#options
    let loggedMs = performance.now()
    for (;;) {
      if (performance.now() - this.#startedMs > (this.#options.limitMs ?? Number.POSITIVE_INFINITY))
        this.#open = []
      while (this.#tasks.size < this.#options.atOnce && this.#open.length > 0) await this.#order()
      if (this.#tasks.size === 0) return
      const { crashOnly, atOnce } = this.#options
      if (crashOnly && this.#replaced === 0 && this.#running().length === atOnce) await this.#crash()
      const woken = new Promise<void>((wake) => {
        this.#wake = wake
      })
      await Promise.race([woken, delay(1_000), this.#conductor?.died, this.#world.e2bDied])
      if (performance.now() - this.#lastSignOfLifeMs > STUCK_MS) {
        const tasks = [...this.#tasks.values()].map(
          ({ taskId, exited, plan }) => `${taskId} (${plan.kind}, ${exited ? 'exited' : 'running'})`,
        )
        throw new Error(`stuck with ${tasks.join(', ')}\n${JSON.stringify(this.#problems, null, 1)}`)
      }
      if (performance.now() - loggedMs > 15_000) {
        loggedMs = performance.now()
        log(
          `${this.#world.ledger.outcomes.length} operations, ${this.#world.ledger.done.size} of ${this.#options.operations} done`,
        )
      }
    }
  }

  async #order(): Promise<void> {
    const { seed } = this.#options
    const plan = planWorker(seed, this.#workers++)
    const operations = this.#open.splice(0, this.#share(plan))
    const taskId = `w${plan.index}-${seed}`
    const task: Task = {
      taskId,
      plan,
      operations,
      sandboxId: undefined,
      exited: false,
      output: { stdout: '', stderr: '' },
      spawn: undefined,
    }
    this.#tasks.set(taskId, task)
    const volume = plan.kind === 'volume' ? volumeOf(taskId) : undefined
    if (volume !== undefined) await this.#world.makeVolume(volume)
    const order: WorkerOrder = {
      seed,
      taskId,
      kind: plan.kind,
      operations,
      exitCode: plan.exitCode,
      reportUrl: this.#world.ledger.url,
      holds: this.#options.crashOnly,
    }
    task.spawn = {
      command: 'exec node /workspace/lab.cjs',
      files: { '/workspace/lab.cjs': await this.#sandboxed },
      outputs: ['/workspace/output.bin'],
      env: {
        FAULTS_RUN: this.#world.mark,
        LAB_ORDER: JSON.stringify(order),
        WORKER_RESULTS_STALL_SECONDS: '2',
        WORKER_RESULTS_DEADLINE_SECONDS: '5',
      },
      ...(volume === undefined ? {} : { volume }),
    }
    // While a conductor is being replaced, its successor is told of the task.
    if (!this.#replacing) this.#spawn(task)
  }

  /** How many operations a worker gets. */
  #share({ index }: WorkerPlan): number {
    const { seed, crashOnly, operations, atOnce } = this.#options
    return crashOnly ? Math.ceil(operations / atOnce) : new Dice(seed, 'share', index).between(8, 40)
  }

  #spawn({ taskId, plan, spawn }: Task): void {
    if (spawn !== undefined) this.#conductor?.order({ do: 'spawn', taskId, kind: plan.kind, spawn })
  }

  /** Workers go on before there is a new conductor, so that some end without any. */
  async #crash(): Promise<void> {
    const { log, atOnce } = this.#options
    this.#replacing = true
    await this.#conductor?.kill()
    log(`killed the conductor of ${atOnce} workers`)
    this.#world.ledger.letsGo = true
    await this.#replaceConductor()
  }

  /** Kills the conductor and has a new one go on, in one of the two ways there are. */
  async #replaceConductor(): Promise<void> {
    this.#replacing = true
    await this.#conductor?.kill()
    this.#conductor = await this.#startConductor()
    this.#replacing = false
    const how = new Dice(this.#options.seed, 'replace', this.#replaced++).chance(0.5) ? 'attach' : 'recover'
    const tasks = [...this.#tasks.values()].map(({ taskId, output }) => ({
      taskId,
      seen: { stdout: Buffer.byteLength(output.stdout), stderr: Buffer.byteLength(output.stderr) },
    }))
    this.#conductor.order({ do: 'take over', how: this.#options.takeOver ?? how, tasks })
  }

  #hear(event: ConductorEvent): void {
    if (event.event === 'started') return
    // Complaints may go on for ever.
    if (event.event !== 'problem') this.#lastSignOfLifeMs = performance.now()
    if (event.taskId === '') {
      if (event.event === 'problem') this.#complain('', event.problem)
      return
    }
    const task = this.#tasks.get(event.taskId)
    if (task === undefined) {
      // A sandbox whose end was told by a conductor that was killed over it may be finished once more.
      if (this.#ended.has(event.taskId)) return
      throw new Error(`unexpected ${JSON.stringify(event)}`)
    }
    switch (event.event) {
      case 'running':
        task.sandboxId = event.sandboxId
        if (event.from === 'start') task.output = { stdout: '', stderr: '' }
        break
      case 'not running':
        this.#complain(event.taskId, `spawn: ${event.problem}`)
        this.#giveBack(task)
        break
      case 'output':
        task.output[event.stream] += event.text
        break
      case 'exit':
        task.exited = true
        break
      case 'problem':
        this.#complain(event.taskId, event.problem)
        break
      case 'receipt':
        this.#receipts.set(event.taskId, event.receipt)
        this.#judgeEnd(task, event.receipt, event.heard)
        this.#giveBack(task)
        break
      case 'absent':
        if (task.sandboxId === undefined) this.#spawn(task)
        else {
          // It was ended by a conductor that was killed before it could say so.
          if (this.#world.ledger.finished.has(task.taskId)) this.#outputs.add(task.taskId)
          this.#giveBack(task)
        }
        break
    }
    this.#wake()
  }

  #complain(taskId: string, problem: string): void {
    // Names and numbers would make each one of its kind.
    const kind = problem
      .replaceAll(taskId, 'TASK')
      .replace(/[0-9a-f]{12,}|\d+/g, '#')
      .slice(0, 200)
    this.#problems[kind] = (this.#problems[kind] ?? 0) + 1
  }

  /** The worker has ended; what it did not get done is for another one. */
  #giveBack(task: Task): void {
    this.#tasks.delete(task.taskId)
    this.#ended.add(task.taskId)
    this.#open.push(...task.operations.filter((number) => !this.#world.ledger.done.has(number)))
    this.#wake()
  }

  /** A worker that came to its end has to have been heard to the last byte, and its exit code has to be its own. */
  #judgeEnd(task: Task, receipt: LabReceipt, heard: boolean): void {
    const { taskId, operations, output, plan } = task
    if (receipt.undelivered.length > 0 && !this.#vanished.has(taskId)) {
      this.#wrongOutputs.push(`${taskId}: gave up ${receipt.undelivered.map(({ key }) => key).join(', ')}`)
    }
    if (this.#vanished.has(taskId) || receipt.outcome === 'idle') return
    if (!this.#world.ledger.finished.has(taskId)) {
      this.#wrongOutputs.push(
        `${taskId}: ended (${receipt.outcome}, ${receipt.exitCode}) before its work did: ${output.stderr.slice(-300)}`,
      )
      return
    }
    this.#outputs.add(taskId)
    if (receipt.exitCode !== plan.exitCode) {
      this.#wrongOutputs.push(
        `${taskId}: exit code ${receipt.exitCode} instead of ${plan.exitCode} (${receipt.outcome}, ${receipt.cause})`,
      )
    }
    if (!heard) {
      this.#unheard++
      return
    }
    const expected = operations.map((number) => knownLine(this.#options.seed, number)).join('')
    if (output.stdout !== expected) {
      this.#wrongOutputs.push(
        `${taskId}: ${output.stdout.length} characters of output instead of ${expected.length}, equal up to ${equalUpTo(output.stdout, expected)}`,
      )
    }
  }

  async #findLeaks(): Promise<string[]> {
    const sandboxes = await this.#world.sandboxes()
    const servers = new Set(this.#world.serverPids())
    return [
      ...sandboxes.map(({ id, taskId }) => `sandbox ${id} of ${taskId}`),
      ...(await markedProcesses(this.#world.mark, servers)),
    ]
  }

  async #check(): Promise<Pick<RoundReport, 'verdict' | 'openUploads' | 'unfinishedFiles'>> {
    const { s3, endpointFolder, volumes, ledger } = this.#world
    const manifests = new Map<string, string>()
    const checker = new Checker({
      seed: this.#options.seed,
      outcomes: ledger.outcomes,
      receipts: this.#receipts,
      manifests,
      outputs: this.#outputs,
      vanished: this.#vanished,
    })
    const visit = (copy: Parameters<Checker['visit']>[0]): Promise<void> => checker.visit(copy)
    const client = plainClient(s3)
    try {
      const bucket = await visitBucket(client, s3.bucket, 'results', visit)
      for (const [taskId, text] of bucket.manifests) manifests.set(taskId, text)
      const problems = [...bucket.problems]
      let unfinishedFiles = 0
      const folders = [
        [endpointFolder, 'http'] as const,
        ...[...volumes.values()].map((folder) => [folder, 'volume'] as const),
      ]
      for (const [folder, place] of folders) {
        const walked = await visitFolder(folder, place, visit)
        problems.push(...walked.problems)
        unfinishedFiles += walked.unfinished
      }
      const verdict = checker.conclude()
      verdict.corrupt.push(...problems)
      return { verdict, openUploads: await countOpenUploads(client, s3.bucket), unfinishedFiles }
    } finally {
      client.destroy()
    }
  }
}

function equalUpTo(a: string, b: string): number {
  let i = 0
  while (i < a.length && a[i] === b[i]) i++
  return i
}
