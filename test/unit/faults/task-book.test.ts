import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { knownOutput } from '../../faults/content.js'
import { Ledger } from '../../faults/ledger.js'
import type { ConductorEvent, LabReceipt, Report } from '../../faults/messages.js'
import { lifeOf, planWorker, taskIdOf } from '../../faults/plan.js'
import { TaskBook } from '../../faults/task-book.js'

const SEED = 1
const PLAN = planWorker(SEED, 0)
const TASK = taskIdOf(SEED, 0)
const LIFE = lifeOf(TASK)
const RECEIPT: LabReceipt = {
  life: 1,
  outcome: PLAN.exitCode === 0 ? 'succeeded' : 'failed',
  exitCode: PLAN.exitCode,
  sealed: true,
  cause: undefined,
  results: [],
  undelivered: [],
  missingOutputs: [],
  failedOutputs: [],
}

let folder: string
let ledger: Ledger
let book: TaskBook

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'task-book-'))
  ledger = await Ledger.open(join(folder, 'ledger.jsonl'))
  book = new TaskBook(2, {
    seed: SEED,
    ledger,
    onChange: () => {},
    onSignOfLife: () => {},
    again: () => {},
  })
  book.add({
    taskId: TASK,
    plan: PLAN,
    operations: book.open.splice(0),
    spawn: { command: 'true', files: {}, outputs: [], env: {} },
    sandboxId: undefined,
    life: 0,
    exited: false,
    output: { stdout: '', stderr: '' },
  })
  book.hear({ event: 'running', taskId: TASK, sandboxId: 'box', life: 1, from: 'start' })
})

afterEach(async () => {
  await ledger.close()
  await rm(folder, { recursive: true, force: true })
})

async function report(what: Report): Promise<void> {
  await fetch(ledger.url, { method: 'POST', body: JSON.stringify(what) })
}

const work = (): Promise<void> =>
  report({
    kind: 'outcome',
    outcome: { taskId: TASK, operation: 0, attempt: 0, via: 'sh', fault: 'none', status: 'killed' },
  })
const finish = (): Promise<void> => report({ kind: 'finished', taskId: TASK, life: 1 })
const print = (text: string): void => book.hear({ event: 'output', taskId: TASK, stream: 'stdout', text })
const end = (changes: Partial<LabReceipt> = {}, heard = true): void =>
  book.hear({ event: 'receipt', taskId: TASK, receipt: { ...RECEIPT, ...changes }, heard })
const all = (): string => knownOutput(SEED, [0, 1], PLAN.printsBinary)

it('wants every byte of output and the exit code of a worker that came to its end', async () => {
  await finish()
  print(all())
  end()
  expect(book.wrongOutputs).toEqual([])
  expect(book.outputs).toEqual(new Set([LIFE]))
})

const UNSURE = [{ key: 'key', reason: 'its sandbox is gone, and not every place could be asked' }]

it.each([
  ['a byte less', () => print(all().slice(1)), {}],
  ['another exit code', () => print(all()), { exitCode: PLAN.exitCode + 1 }],
  ['what was not looked for in the end', () => print(all()), { sealed: true, undelivered: UNSURE }],
  ['what was given up', () => print(all()), { undelivered: [{ key: 'key', reason: 'it is gone' }] }],
] as const)('finds %s', async (_, tell, changes) => {
  await finish()
  tell()
  end(changes)
  expect(book.wrongOutputs).toHaveLength(1)
})

it('takes for no loss what could not be looked for yet', async () => {
  await finish()
  print(all())
  end({ sealed: false, undelivered: UNSURE })
  expect(book.wrongOutputs).toEqual([])
})

it('finds output that a new conductor did not tell', async () => {
  await finish()
  end({}, false)
  expect(book.wrongOutputs).toHaveLength(1)
})

it('finds a conductor that killed what it should have kept', async () => {
  await work()
  end({ outcome: 'killed', exitCode: null })
  expect(book.wrongOutputs).toHaveLength(1)
})

it('finds a worker that is gone before its work was done', async () => {
  await work()
  book.hear({ event: 'absent', taskId: TASK })
  expect(book.wrongOutputs).toHaveLength(1)
})

it.each(['forced', 'meddled', 'vanished'] as const)('excuses the end of one that was %s', async (how) => {
  await work()
  book[how].add(LIFE)
  end({ outcome: 'killed', exitCode: null })
  expect(book.wrongOutputs).toEqual([])
  expect(book.open).toEqual([0, 1])
})

it('tells trouble that passes from trouble that stays', () => {
  const problem = (text: string): ConductorEvent => ({ event: 'problem', taskId: TASK, problem: text })
  book.hear(problem('terminate: UNDELIVERED (retryable): would destroy'))
  book.hear(problem('wait: SANDBOX_GONE: sandbox box is gone'))
  expect(book.unexpected).toEqual([])
  book.hear(problem('terminate: PROTOCOL: drain report is not JSON'))
  book.hear(problem('attach: TypeError: undefined is not a function'))
  expect(book.unexpected).toHaveLength(2)
})
