import { knownOutput } from './content.js'
import type { Ledger } from './ledger.js'
import type { ConductorEvent, LabReceipt, SpawnOrder } from './messages.js'
import type { Victim } from './moves.js'
import { lifeOf, type WorkerPlan } from './plan.js'

/** A conductor's trouble that passes, or that follows from what the adversary does. */
const EXPECTED_PROBLEM = /^[\w ]+: (?:\w+ \(retryable\)|SANDBOX_GONE|SANDBOX_PAUSED|NOT_FOUND): /

/** A worker that was ordered and has no receipt yet. */
export interface Task {
  readonly taskId: string
  readonly plan: WorkerPlan
  readonly operations: readonly number[]
  readonly spawn: SpawnOrder
  /** Of its present sandbox; undefined while it has none. */
  sandboxId: string | undefined
  life: number
  exited: boolean
  output: { stdout: string; stderr: string }
}

/** What the book of a round's tasks needs to know. */
export interface TaskBookOptions {
  readonly seed: number
  readonly ledger: Ledger
  /** Something came to its end, or has to be ordered once more. */
  readonly onChange: () => void
  readonly onSignOfLife: () => void
  /** Nothing came of a task's order yet. */
  readonly again: (task: Task) => void
}

/** The workers of a round, and what conductors have said of them. */
export class TaskBook {
  readonly #options: TaskBookOptions
  readonly #tasks = new Map<string, Task>()
  readonly #ended = new Set<string>()
  /** Numbers of operations that no worker has yet. */
  open: number[]
  readonly receipts = new Map<string, LabReceipt>()
  /** Lives whose sandbox the adversary destroyed. */
  readonly vanished = new Set<string>()
  /** Lives that were ended by force, whatever became of their results. */
  readonly forced = new Set<string>()
  /** Lives that a second conductor had its hands in. */
  readonly meddled = new Set<string>()
  /** Lives whose declared output has to be there. */
  readonly outputs = new Set<string>()
  /** Sandboxes that a conductor said it had to leave to another's recovery. */
  readonly left = new Set<string>()
  readonly problems: Record<string, number> = {}
  /** By task: all that conductors have said of it but what it printed, for whoever asks how something came about. */
  readonly journal = new Map<string, string[]>()
  /** Problems that another attempt does not solve. */
  readonly unexpected: string[] = []
  readonly wrongOutputs: string[] = []
  /** How often a command began again in another sandbox. */
  begunAgain = 0
  #operations: number

  constructor(operations: number, options: TaskBookOptions) {
    this.#options = options
    this.#operations = 0
    this.open = []
    this.extend(operations)
  }

  /** Adds so many operations. */
  extend(operations: number): void {
    for (let i = 0; i < operations; i++) this.open.push(this.nextOperation())
  }

  /** Number of one more operation, of which whoever asks takes care. */
  nextOperation(): number {
    return this.#operations++
  }

  get tasks(): readonly Task[] {
    return [...this.#tasks.values()]
  }

  add(task: Task): void {
    this.#tasks.set(task.taskId, task)
  }

  /** Workers whose command runs. */
  running(): Victim[] {
    return this.tasks.flatMap(({ taskId, sandboxId, life, plan, exited }) =>
      sandboxId === undefined || exited || this.vanished.has(lifeOf(taskId, life))
        ? []
        : [{ taskId, sandboxId, life, plan }],
    )
  }

  hear(event: ConductorEvent): void {
    if (event.event === 'started' || event.event === 'obeyed') return
    // Complaints may go on for ever.
    if (event.event !== 'problem') this.#options.onSignOfLife()
    if (event.taskId === '') {
      if (event.event === 'problem') this.complain('', event.problem)
      return
    }
    this.note(event)
    const task = this.#tasks.get(event.taskId)
    if (task === undefined) {
      // A sandbox whose end was told by a conductor that was killed over it may be finished once more.
      if (this.#ended.has(event.taskId)) return
      throw new Error(`unexpected ${JSON.stringify(event)}`)
    }
    this.#take(task, event)
    this.#options.onChange()
  }

  /** Writes down what was said of a task; of output only how much, and once for what comes in a row. */
  note(event: ConductorEvent, by = ''): void {
    if (!('taskId' in event)) return
    const { taskId, ...said } = event
    const at = `${new Date().toISOString().slice(11, 23)} ${by}`
    const lines = this.journal.get(taskId) ?? []
    if (said.event === 'output') lines.push(`${at}${said.stream} ${said.text.length}`)
    else lines.push(`${at}${JSON.stringify(said)}`.slice(0, 300))
    this.journal.set(taskId, lines)
  }

  #take(task: Task, event: Exclude<ConductorEvent, { readonly event: 'started' | 'obeyed' }>): void {
    switch (event.event) {
      case 'running':
        if (task.life > 0 && event.life > task.life) this.begunAgain++
        task.sandboxId = event.sandboxId
        task.life = event.life
        task.exited = false
        if (event.from === 'start') task.output = { stdout: '', stderr: '' }
        break
      case 'retrying':
        // What is printed from now on is another command's.
        task.sandboxId = undefined
        task.output = { stdout: '', stderr: '' }
        break
      case 'not running':
        this.complain(event.taskId, `spawn: ${event.problem}`)
        this.#giveBack(task)
        break
      case 'output':
        task.output[event.stream] += event.text
        break
      case 'exit':
        task.exited = true
        break
      case 'problem':
        this.complain(event.taskId, event.problem)
        break
      case 'receipt':
        this.receipts.set(event.taskId, event.receipt)
        this.#judgeEnd(task, event.receipt, event.heard)
        this.#giveBack(task)
        break
      case 'absent':
        if (task.life === 0) this.#options.again(task)
        else {
          // It was ended by a conductor that was killed before it could say so, or was lost under one.
          this.#judgeAbsent(task)
          this.#giveBack(task)
        }
        break
    }
  }

  /** Notes what a conductor complained of. */
  complain(taskId: string, problem: string): void {
    const left = /sandbox (\S+) (?:is left to recover|could neither be equipped nor killed)/.exec(
      problem,
    )?.[1]
    if (left !== undefined) this.left.add(left)
    // Names and numbers would make each one of its kind.
    const kind = problem
      .replace(/w\d+-\d+/g, 'TASK')
      .replace(/[0-9a-f]{12,}|\d+/g, '#')
      .slice(0, 200)
    this.problems[kind] = (this.problems[kind] ?? 0) + 1
    if (left === undefined && !EXPECTED_PROBLEM.test(problem))
      this.unexpected.push(`${taskId} ${problem}`.slice(0, 400))
  }

  /** The worker has ended; what it did not get done is for another one. */
  #giveBack(task: Task): void {
    this.#tasks.delete(task.taskId)
    this.#ended.add(task.taskId)
    this.open.push(...task.operations.filter((number) => !this.#options.ledger.done.has(number)))
  }

  /** A worker that came to its end has to have been heard to the last byte, and its exit code has to be its own. */
  #judgeEnd(task: Task, receipt: LabReceipt, heard: boolean): void {
    const { taskId, output, plan } = task
    const { ledger } = this.#options
    const life = lifeOf(taskId, receipt.life ?? task.life)
    // What a receipt that is not the last word says it could not look for is not given up.
    const isUnsure = (reason: string): boolean =>
      !receipt.sealed && reason.includes('not every place could be asked')
    const givenUp = receipt.undelivered.filter(({ reason }) => !isUnsure(reason))
    if (givenUp.length > 0 && !this.vanished.has(life) && !this.forced.has(life)) {
      this.wrongOutputs.push(
        `${life}: gave up ${givenUp.map(({ key, reason }) => `${key} (${reason})`).join(', ')}`,
      )
    }
    if (this.vanished.has(life)) return
    if (receipt.outcome === 'idle' && !this.#hasWorked(life)) return
    if (!ledger.finished.has(life)) {
      if (this.#isDisturbed(life)) return
      this.wrongOutputs.push(
        `${life}: ended (${receipt.outcome}, ${receipt.exitCode}, ${receipt.cause}) before its work did: ${output.stderr.slice(-300)}`,
      )
      return
    }
    if (this.forced.has(life)) return
    this.outputs.add(life)
    if (this.#isDisturbed(life)) return
    if (receipt.exitCode !== plan.exitCode) {
      this.wrongOutputs.push(
        `${life}: exit code ${receipt.exitCode} instead of ${plan.exitCode} (${receipt.outcome}, ${receipt.cause})`,
      )
    }
    if (heard || task.exited) this.#judgeOutput(task, life)
    else this.wrongOutputs.push(`${life}: its output was not told`)
  }

  #judgeAbsent(task: Task): void {
    const { ledger } = this.#options
    const life = lifeOf(task.taskId, task.life)
    if (this.vanished.has(life) || this.forced.has(life)) return
    if (ledger.finished.has(life)) this.outputs.add(life)
    if (this.#isDisturbed(life)) return
    if (!ledger.finished.has(life)) {
      if (this.#hasWorked(life)) this.wrongOutputs.push(`${life}: gone before its work was done`)
    } else if (task.exited) this.#judgeOutput(task, life)
    else this.wrongOutputs.push(`${life}: gone, and its output was not told`)
  }

  /** Whether somebody else may have ended it, on the laboratory's own orders. */
  #isDisturbed(life: string): boolean {
    return this.forced.has(life) || this.meddled.has(life)
  }

  #hasWorked(life: string): boolean {
    return this.#options.ledger.outcomes.some((outcome) => lifeOf(outcome.taskId, outcome.life) === life)
  }

  #judgeOutput({ operations, output, plan }: Task, life: string): void {
    const expected = knownOutput(this.#options.seed, operations, plan.printsBinary)
    // Its disk may have been filled for long, and what that did not keep is counted there.
    if (plan.kind === 'volume' && isCutAsTold(output.stdout, expected)) return
    if (output.stdout !== expected) {
      this.wrongOutputs.push(
        `${life}: ${output.stdout.length} characters of output instead of ${expected.length}, equal up to ${equalUpTo(output.stdout, expected)}`,
      )
    }
  }
}

/** Whether just that much is missing of the expected as is said in its place. */
function isCutAsTold(output: string, expected: string): boolean {
  const said = /\n\[persist-result: (\d+) bytes (?:left out|could not be written)\]\n/.exec(output)
  if (said === null) return false
  const [start, end] = [output.slice(0, said.index), output.slice(said.index + said[0].length)]
  if (!expected.startsWith(start) || !expected.endsWith(end)) return false
  const missing = expected.slice(start.length, expected.length - end.length)
  return Buffer.byteLength(missing) === Number(said[1])
}

function equalUpTo(a: string, b: string): number {
  let i = 0
  while (i < a.length && a[i] === b[i]) i++
  return i
}
