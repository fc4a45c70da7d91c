import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Adversary } from './adversary.js'
import { ConductorProcess } from './conductor-process.js'
import { countPersisterFaults, findUnfelt } from './felt.js'
import { Meddler } from './meddler.js'
import type { ConductorEvent, WorkerOrder } from './messages.js'
import { type Action, type Victim, volumeOf } from './moves.js'
import { lifeOf, planWorker, taskIdOf, UNDECLARED_FOLDER, type WorkerPlan } from './plan.js'
import { Dice } from './random.js'
import { compareReadings, readBackAll } from './reading-back.js'
import { checkRefusals } from './refusals.js'
import { checkRemains, findLeaks, recoverTwice } from './remains.js'
import type { RoundReport } from './report.js'
import { type Task, TaskBook } from './task-book.js'
import { startWorld, type World } from './world.js'

/** What may be left out of a round: moves of the adversary, and workers that print what is no UTF-8. */
export type Omission = Action | 'binary output'

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
  readonly without: readonly Omission[]
  readonly log: (line: string) => void
}

/** Without any report or event for so long, a round is stuck. */
const STUCK_MS = 120_000
/** From so many operations on, a round goes on until each of the adversary's moves was felt. */
const WHOLE_ROUND = 50
/** At most so many operations more, for each that was asked for. */
const MOST_MORE = 3
/** How many at a time. */
const MORE = 24

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
  readonly #book: TaskBook
  readonly #meddler: Meddler
  /** By task: who waits for the conductor to have ended it by force. */
  readonly #forcing = new Map<string, (well: boolean) => void>()
  #more = 0
  #workers = 0
  #replacing = false
  #replaced = 0
  #lastSignOfLifeMs = performance.now()
  readonly #startedMs = performance.now()
  #conductor: ConductorProcess | undefined
  #wake: () => void = () => {}

  constructor(options: RoundOptions, world: World) {
    this.#options = options
    this.#world = world
    this.#sandboxed = readFile(join(options.programs, 'sandboxed.cjs'), 'utf8')
    const book = new TaskBook(options.operations, {
      seed: options.seed,
      ledger: world.ledger,
      onChange: () => this.#wake(),
      onSignOfLife: () => {
        this.#lastSignOfLifeMs = performance.now()
      },
      again: (task) => this.#spawn(task),
    })
    this.#book = book
    this.#meddler = new Meddler(options, world, book)
    const { seed, operations } = options
    const without = new Map<Omission, string>(options.without.map((what) => [what, 'left out']))
    if (world.s3.freeze === undefined)
      without.set('freeze S3', 'Ceph keeps its daemons behind a guard that takes no signals')
    if (world.noSmallDisks !== undefined) without.set('fill disk', world.noSmallDisks)
    this.#adversary = new Adversary({ seed, operations, without }, world, {
      running: () => book.running(),
      vanished: ({ taskId, life }, is) => {
        if (is) book.vanished.add(lifeOf(taskId, life))
        else book.vanished.delete(lifeOf(taskId, life))
      },
      conductor: {
        replace: () => this.#replaceConductor(),
        signal: (signal) => this.#conductor?.signal(signal),
        forceKill: (victim) => this.#forceKill(victim),
        meddle: (victim, dice) => this.#meddler.meddle(victim, dice),
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
    const leaked = new Set(await findLeaks(this.#world, this.#book.left))
    const { receipts, outputs, vanished, forced, meddled, problems, wrongOutputs, unexpected, begunAgain } =
      this.#book
    const unrecovered = await recoverTwice(this.#world.conductorOptions)
    const readBack = await readBackAll(this.#world)
    for (const leak of await findLeaks(this.#world)) leaked.add(leak)
    const { outcomes } = this.#world.ledger
    const { verdict, openUploads, unfinishedFiles, encrypted, found, manifests } = await checkRemains(
      this.#world,
      {
        seed,
        outcomes,
        receipts,
        outputs,
        vanished,
        forced,
        meddled,
      },
    )
    verdict.contradictions.push(...unrecovered, ...compareReadings(readBack, found))
    this.#tellJournal(
      [
        ...wrongOutputs,
        ...verdict.mistold,
        ...verdict.duplicated,
        ...verdict.contradictions,
        ...verdict.lost,
        ...verdict.corrupt,
      ],
      manifests,
    )
    const persisters = countPersisterFaults(seed, outcomes)
    const faults = { ...this.#adversary.faults, ...this.#world.connectionFaults, ...persisters.felt }
    const byChance = { ...this.#world.plannedConnectionFaults, ...persisters.planned }
    const unfelt = this.#isWhole ? [...this.#adversary.owed, ...findUnfelt(byChance, faults)] : []
    const planned = { ...this.#adversary.planned, ...byChance }
    return {
      seed,
      s3,
      operations: this.#world.ledger.done.size,
      calls: outcomes.length,
      faults,
      planned,
      workers: this.#workers,
      begunAgain,
      verdict,
      leaked: [...leaked],
      openUploads,
      unfinishedFiles,
      encrypted,
      problems,
      wrongOutputs,
      unexpected,
      unstored: checkRefusals({ seed, outcomes, done: this.#world.ledger.done }),
      unfelt,
      notDone: [...this.#adversary.notDone].map(([action, why]) => `${action}: ${why}`),
    }
  }

  /** How what is wrong came about, as far as it was seen. */
  #tellJournal(problems: readonly string[], manifests: ReadonlyMap<string, string>): void {
    const { seed, log } = this.#options
    const name = new RegExp(`w\\d+-${seed}`)
    for (const taskId of new Set(problems.flatMap((problem) => name.exec(problem)?.[0] ?? []))) {
      log(`journal of ${taskId}\n  ${(this.#book.journal.get(taskId) ?? []).join('\n  ')}`)
      const manifest = manifests.get(taskId)
      if (manifest === undefined) continue
      const { attempts, results, complete } = JSON.parse(manifest)
      log(`  manifest, ${results.length} result(s), ${complete ? '' : 'not '}complete`)
      for (const { keys, ...rest } of attempts) log(`  ${JSON.stringify({ ...rest, keys: keys.length })}`)
    }
  }

  #startConductor(): Promise<ConductorProcess> {
    const {
      env,
      conductorOptions,
      encryption: { publicKey, privateKey },
    } = this.#world
    const encrypts = new Dice(this.#options.seed, 'encrypts', this.#replaced).chance(0.4)
    const encryption = { privateKeys: [privateKey], ...(encrypts ? { publicKey } : {}) }
    return ConductorProcess.start(
      join(this.#options.programs, 'conductor-main.mjs'),
      env,
      { ...conductorOptions, encryption },
      (event) => this.#hear(event),
    )
  }

  #hear(event: ConductorEvent): void {
    if (event.event === 'obeyed') {
      this.#forcing.get(event.taskId)?.(event.well)
      this.#forcing.delete(event.taskId)
    } else this.#book.hear(event)
  }

  /** Whether each move of the adversary has to have been felt. */
  get #isWhole(): boolean {
    const { crashOnly, operations, limitMs } = this.#options
    return !crashOnly && operations >= WHOLE_ROUND && limitMs === undefined
  }

  /** Adds operations while there are moves that nobody has felt yet. */
  #goOn(): boolean {
    const isEnough = this.#more >= this.#options.operations * MOST_MORE
    if (!this.#isWhole || this.#adversary.owed.length === 0 || isEnough) return false
    this.#more += MORE
    this.#book.extend(MORE)
    return true
  }

  async #forceKill({ taskId, life }: Victim): Promise<boolean> {
    if (this.#replacing || this.#forcing.has(taskId)) return false
    this.#book.forced.add(lifeOf(taskId, life))
    return new Promise<boolean>((obeyed) => {
      this.#forcing.set(taskId, obeyed)
      this.#conductor?.order({ do: 'kill', taskId })
    })
  }

  async #untilAllDone(): Promise<void> {
    const { log } = this.#options
    const book = this.#book
    let loggedMs = performance.now()
    for (;;) {
      if (performance.now() - this.#startedMs > (this.#options.limitMs ?? Number.POSITIVE_INFINITY))
        book.open = []
      while (book.tasks.length < this.#options.atOnce && book.open.length > 0) await this.#order()
      if (book.tasks.length === 0) {
        if (this.#goOn()) continue
        return
      }
      const { crashOnly, atOnce } = this.#options
      if (crashOnly && this.#replaced === 0 && book.running().length === atOnce) await this.#crash()
      const woken = new Promise<void>((wake) => {
        this.#wake = wake
      })
      await Promise.race([woken, delay(1_000), this.#conductor?.died, this.#world.e2bDied])
      if (performance.now() - this.#lastSignOfLifeMs > STUCK_MS) {
        const tasks = book.tasks.map(
          ({ taskId, exited, plan }) => `${taskId} (${plan.kind}, ${exited ? 'exited' : 'running'})`,
        )
        throw new Error(`stuck with ${tasks.join(', ')}\n${JSON.stringify(book.problems, null, 1)}`)
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
    const { seed, crashOnly } = this.#options
    const planned = planWorker(seed, this.#workers++)
    const printsBinary = planned.printsBinary && !this.#options.without.includes('binary output')
    const plan = { ...planned, printsBinary }
    const operations = this.#book.open.splice(0, this.#share(plan))
    const taskId = taskIdOf(seed, plan.index)
    const order: WorkerOrder = {
      seed,
      taskId,
      kind: plan.kind,
      operations,
      exitCode: plan.exitCode,
      reportUrl: this.#world.ledger.url,
      holds: crashOnly,
      printsBinary: plan.printsBinary,
    }
    const volume = plan.kind === 'volume' ? volumeOf(taskId) : undefined
    const task: Task = {
      taskId,
      plan,
      operations,
      spawn: {
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
        retriesLost: plan.retriesLost,
        rereads: plan.printsBinary,
        ...(plan.leavesUndeclared ? { undeclared: { roots: [UNDECLARED_FOLDER] } } : {}),
      },
      sandboxId: undefined,
      life: 0,
      exited: false,
      output: { stdout: '', stderr: '' },
    }
    this.#book.add(task)
    if (volume !== undefined) await this.#world.makeVolume(volume)
    // While a conductor is being replaced, its successor is told of the task.
    if (!this.#replacing) this.#spawn(task)
  }

  /** How many operations a worker gets. */
  #share({ index }: WorkerPlan): number {
    const { seed, crashOnly, operations, atOnce } = this.#options
    return crashOnly ? Math.ceil(operations / atOnce) : new Dice(seed, 'share', index).between(8, 40)
  }

  #spawn({ taskId, plan, spawn }: Task): void {
    this.#conductor?.order({ do: 'spawn', taskId, kind: plan.kind, spawn })
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
    for (const obeyed of this.#forcing.values()) obeyed(false)
    this.#forcing.clear()
    this.#conductor = await this.#startConductor()
    this.#replacing = false
    const how = new Dice(this.#options.seed, 'replace', this.#replaced++).chance(0.5) ? 'attach' : 'recover'
    const tasks = this.#book.tasks.map(({ taskId, output, plan }) => ({
      taskId,
      seen: plan.printsBinary
        ? undefined
        : { stdout: Buffer.byteLength(output.stdout), stderr: Buffer.byteLength(output.stderr) },
    }))
    this.#conductor.order({ do: 'take over', how: this.#options.takeOver ?? how, tasks })
  }
}
