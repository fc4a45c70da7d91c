import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Sandbox } from 'e2b'
import { Conductor } from '../../../src/index.js'
import { Checker } from '../checker.js'
import { knownLine } from '../content.js'
import { type Copy, visitBucket, visitFolder } from '../copies.js'
import type { SpawnOrder, WorkerOrder } from '../messages.js'
import { lifeOf, planFault, planOperation } from '../plan.js'
import { recoverTwice } from '../remains.js'
import { plainClient } from '../s3-backend.js'
import type { World } from '../world.js'
import type { MatrixMessage, MatrixOrder } from './messages.js'
import type { MatrixReport } from './persister-matrix.js'

/** What a conductor does when it is killed. */
export type ConductorScenario = 'terminate' | 'recover' | 'retry'

/** What the matrix needs. */
export interface ConductorMatrixOptions {
  readonly seed: number
  readonly world: World
  /** Folder of the bundled programs. */
  readonly programs: string
  /** Text of the program for sandboxes. */
  readonly sandboxed: string
  readonly every: number
}

const EXIT_CODE = 7
const LIMIT_MS = 60_000

/** Kills a conductor at one step after the other; each time another one recovers, and everything is checked. */
export async function killConductorAtEveryStep(
  scenario: ConductorScenario,
  options: ConductorMatrixOptions,
): Promise<MatrixReport> {
  const problems: string[] = []
  const { problems: first, steps } = await new Trial(scenario, options, 0).run(undefined)
  problems.push(...first.map((problem) => `without a kill: ${problem}`))
  let kills = 0
  for (let step = 1 + (options.seed % options.every); step <= steps; step += options.every) {
    const trial = await new Trial(scenario, options, step).run(step)
    if (trial.wasKilled) kills++
    for (const problem of trial.problems) problems.push(`killed at step ${step}: ${problem}`)
  }
  return { name: `conductor: ${scenario}`, steps, kills, problems }
}

/** A conductor in a process of its own. */
interface Victim {
  readonly ended: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>
  until(what: MatrixMessage['said']): Promise<void>
  /** Has it count its steps from now on. */
  send(): void
  kill(): Promise<void>
}

/** One kill, with workers of its own: two, or one that is begun again. */
class Trial {
  readonly #scenario: ConductorScenario
  readonly #options: ConductorMatrixOptions
  readonly #conductorId: string
  readonly #operations: readonly (readonly number[])[]
  readonly #sandboxes = new Map<string, string>()
  #output = ''

  constructor(scenario: ConductorScenario, options: ConductorMatrixOptions, number: number) {
    this.#scenario = scenario
    this.#options = options
    this.#conductorId = `matrix-${scenario}-${options.seed}-${number}`
    const base = { terminate: 1, recover: 2, retry: 3 }[scenario] * 10_000_000 + number * 10_000
    const some = calmOperations(options.seed, base, 4)
    this.#operations = scenario === 'retry' ? [some] : [some.slice(0, 2), some.slice(2)]
  }

  async run(step: number | undefined): Promise<{ problems: string[]; steps: number; wasKilled: boolean }> {
    const countFile = join(tmpdir(), `${this.#conductorId}.count`)
    const hook = step === undefined ? { LAB_COUNT_FILE: countFile } : { LAB_KILL_AT: String(step) }
    const problems: string[] = []
    if (this.#scenario === 'recover') {
      const left = this.#start('leave', undefined)
      await left.until('left')
      await left.kill()
    }
    const victim = this.#start(this.#scenario, hook)
    if (this.#scenario === 'retry') await this.#loseSandbox(victim)
    const isUp = victim.until('recovered').then(
      () => this.#letGo(),
      () => {
        // Killed before, or a scenario in which nothing is recovered.
      },
    )
    const { code, signal } = await victim.ended
    await isUp
    if (signal !== 'SIGKILL' && code !== 0) problems.push(`the conductor ended with ${code ?? signal}`)
    const isRecovered = signal === null && code === 0
    if (!isRecovered) await this.#recover(problems)
    problems.push(...(await this.#check()))
    let steps = 0
    if (step === undefined) {
      steps = Number(await readFile(countFile, 'utf8'))
      await rm(countFile)
    }
    return { problems, steps, wasKilled: signal === 'SIGKILL' }
  }

  /** Takes the worker's sandbox away once it has done its work, and counts from then on. */
  async #loseSandbox(victim: Victim): Promise<void> {
    const { ledger, e2b } = this.#options.world
    const life = lifeOf(this.#taskId(0), 1)
    const done = new Promise<void>((finished) => {
      ledger.onReport(() => {
        if (ledger.finished.has(life)) finished()
      })
    })
    await victim.until('sandbox')
    await done
    victim.send()
    await victim.until('armed')
    this.#output = ''
    await Sandbox.kill(this.#sandboxes.get(this.#taskId(0)) ?? '', e2b)
  }

  /** The laboratory's own process is the next conductor. */
  async #recover(problems: string[]): Promise<void> {
    const conductor = new Conductor({ ...this.#options.world.conductorOptions, id: this.#conductorId })
    this.#output = ''
    try {
      const { workers, failures } = await conductor.recover()
      for (const { taskId, error } of failures) problems.push(`${taskId} was not recovered: ${error.message}`)
      for (const worker of workers) {
        worker.on('stdout', (text) => {
          this.#output += text
        })
        this.#sandboxes.set(worker.taskId, worker.sandboxId)
        await this.#letGo()
        const { exitCode, outcome } = await worker.wait()
        // One that was made anew may not have come to its command.
        const isIdle = this.#scenario === 'retry' && worker.attempt > 1 && outcome === 'idle'
        if (isIdle) return void (await worker.terminate())
        if (exitCode !== EXIT_CODE) problems.push(`${worker.taskId}: exit code ${exitCode}`)
        await worker.terminate()
      }
      const expected = this.#lines(this.#scenario === 'retry' ? 0 : 1)
      if (workers.length > 0 && this.#output !== expected) {
        problems.push(`${this.#output.length} characters of output, ${expected.length} expected`)
      }
    } finally {
      await conductor.close()
    }
    const options = { ...this.#options.world.conductorOptions, id: this.#conductorId }
    problems.push(...(await recoverTwice(options, (taskId) => taskId.startsWith(this.#conductorId))))
  }

  async #letGo(): Promise<void> {
    const sandboxId = this.#sandboxes.get(this.#taskId(this.#scenario === 'retry' ? 0 : 1))
    if (sandboxId === undefined || this.#scenario === 'terminate') return
    const sandbox = await Sandbox.connect(sandboxId, this.#options.world.e2b)
    await sandbox.files.write('/workspace/go', '')
  }

  #taskId(worker: number): string {
    return `${this.#conductorId}-${worker}`
  }

  #lines(worker: number): string {
    return (this.#operations[worker] ?? []).map((number) => knownLine(this.#options.seed, number)).join('')
  }

  #start(what: MatrixOrder['do'], hook: Readonly<Record<string, string>> | undefined): Victim {
    const { programs, world } = this.#options
    const tasks = [...this.#operations.keys()].map((worker) => ({
      taskId: this.#taskId(worker),
      spawn: this.#spawn(worker),
    }))
    const order: MatrixOrder = { do: what, tasks: what === 'recover' ? [] : tasks }
    const required = hook === undefined ? [] : ['--require', join(programs, 'step-hook.cjs')]
    const child = spawn(process.execPath, [...required, join(programs, 'matrix-main.mjs')], {
      env: {
        ...world.env,
        ...hook,
        LAB_ARM_LATER: '1',
        LAB_ORDER: JSON.stringify(order),
        LAB_CONDUCTOR: JSON.stringify({ ...world.conductorOptions, id: this.#conductorId }),
      },
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    const said = new Set<string>()
    let hear: () => void = () => {}
    child.on('message', (message: MatrixMessage) => {
      if (message.said === 'sandbox') this.#sandboxes.set(message.taskId, message.sandboxId)
      else if (message.said === 'output') this.#output += message.text
      said.add(message.said)
      hear()
    })
    const ended = once(child, 'exit').then(([code, signal]) => ({
      code: code as number | null,
      signal: signal as NodeJS.Signals | null,
    }))
    return {
      ended,
      until: async (what: MatrixMessage['said']): Promise<void> => {
        while (!said.has(what)) {
          const heard = new Promise<void>((done) => {
            hear = done
          })
          await Promise.race([
            heard,
            ended.then(() => {
              throw new Error(`the conductor ended before it said "${what}"`)
            }),
            delay(LIMIT_MS, undefined, { ref: false }).then(() => {
              throw new Error(`the conductor did not say "${what}" in time`)
            }),
          ])
        }
      },
      send: (): void => void child.send('arm'),
      kill: async (): Promise<void> => {
        child.kill('SIGKILL')
        await ended
      },
    }
  }

  /** The first worker's results are in S3 already; the second's only in its spool, and in one scenario it waits to be let go. */
  #spawn(worker: number): SpawnOrder {
    const { seed, world, sandboxed } = this.#options
    const order: WorkerOrder = {
      seed,
      taskId: this.#taskId(worker),
      kind: 'grant',
      operations: this.#operations[worker] ?? [],
      exitCode: EXIT_CODE,
      reportUrl: world.ledger.url,
      holds: false,
    }
    const dead = 'AWS_ENDPOINT_URL_S3=http://127.0.0.1:1 AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none'
    const command = {
      near: 'exec node /workspace/lab.cjs',
      far: `WORKER_RESULTS_ENDPOINT=http://127.0.0.1:1 WORKER_RESULTS_S3_BUCKET=none ${dead} exec node /workspace/lab.cjs`,
    }
    const program = worker === 1 ? command.far : command.near
    const waits = this.#scenario === 'retry' || (this.#scenario === 'recover' && worker === 1)
    const wait = `while [ ! -e /workspace/go ]; do sleep 0.05; done; exit ${EXIT_CODE}`
    return {
      command: waits ? `( ${program} ); ${wait}` : program,
      ...(this.#scenario === 'retry' ? { retriesLost: 1 } : {}),
      files: { '/workspace/lab.cjs': sandboxed },
      outputs: ['/workspace/output.bin'],
      env: {
        FAULTS_RUN: world.mark,
        LAB_ORDER: JSON.stringify(order),
        WORKER_RESULTS_DEADLINE_SECONDS: '1',
      },
    }
  }

  async #check(): Promise<string[]> {
    const { world, seed } = this.#options
    const tasks = new Set([...this.#operations.keys()].map((worker) => this.#taskId(worker)))
    const manifests = new Map<string, string>()
    const isRetry = this.#scenario === 'retry'
    const finished = [...tasks]
      .map((taskId) => lifeOf(taskId, isRetry ? 2 : 1))
      .filter((life) => world.ledger.finished.has(life))
    const checker = new Checker({
      seed,
      outcomes: world.ledger.outcomes.filter(({ taskId }) => tasks.has(taskId)),
      receipts: new Map(),
      manifests,
      outputs: new Set(finished),
      vanished: new Set(),
    })
    const visit = (copy: Copy): Promise<void> =>
      tasks.has(copy.key.slice(0, copy.key.indexOf('/'))) ? checker.visit(copy) : Promise.resolve()
    const client = plainClient(world.s3)
    const problems: string[] = []
    try {
      for (const taskId of tasks) {
        problems.push(
          ...(await visitBucket(client, world.s3.bucket, 'results', visit, `${taskId}/`)).problems,
        )
        const prefix = `.tasks/${taskId}`
        const found = await visitBucket(client, world.s3.bucket, 'results', visit, prefix)
        const text = found.manifests.get(taskId)
        if (text === undefined) {
          problems.push(`${taskId} was not sealed`)
          continue
        }
        manifests.set(taskId, text)
        const { exit } = JSON.parse(text) as { exit: { code: number | null } | null }
        const isOver = !isRetry || finished.length > 0
        if (isOver && exit?.code !== EXIT_CODE)
          problems.push(`${taskId} was sealed with ${JSON.stringify(exit)}`)
      }
      problems.push(...(await visitFolder(world.endpointFolder, 'http', visit)).problems)
    } finally {
      client.destroy()
    }
    if (!isRetry && finished.length !== tasks.size) problems.push('the workers did not come to their end')
    const { lost, corrupt, duplicated, contradictions, mistold } = checker.conclude()
    const leaked = (await world.sandboxes()).filter(({ taskId }) => tasks.has(taskId))
    return [
      ...problems,
      ...lost.map((line) => `lost: ${line}`),
      ...corrupt.map((line) => `corrupt: ${line}`),
      ...duplicated.map((line) => `duplicated: ${line}`),
      ...contradictions,
      ...mistold,
      ...leaked.map(({ id, taskId }) => `sandbox ${id} of ${taskId} is still there`),
    ]
  }
}

/** Small results that nobody kills over, from a number on. */
function calmOperations(seed: number, from: number, count: number): number[] {
  const found: number[] = []
  for (let number = from; found.length < count; number++) {
    const { sizeBytes, via } = planOperation(seed, number)
    const calm = planFault(seed, number, 0).kind === 'none'
    if (calm && via === 'module' && sizeBytes > 100 && sizeBytes < 64_000) found.push(number)
  }
  return found
}
