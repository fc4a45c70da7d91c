import { setTimeout as delay } from 'node:timers/promises'
import type { Receipt } from '../../../src/conductor/end/receipt.js'
import type { Worker } from '../../../src/conductor/worker/worker.js'
import { Conductor, isConductorError } from '../../../src/index.js'
import type { ConductorEvent, ConductorOrder, LabReceipt, SeenBytes } from '../messages.js'

/** Pause between two attempts at what failed for now. */
const PAUSE_MS = 300

/** How often a worker is looked at that has had no command. */
const MAX_IDLE = 20
const FROM_START: SeenBytes = { stdout: 0, stderr: 0 }
/** How long it may take to end when it is asked to. */
const CLOSE_MS = 30_000

type OrderTo<What extends ConductorOrder['do']> = Extract<ConductorOrder, { do: What }>
type TakenTask = OrderTo<'take over'>['tasks'][number]

/** How much of each worker's last command was passed on; undefined where that is not to be gone on from. */
const heard = new Map<string, { stdout: number; stderr: number } | undefined>()
const workers = new Map<string, Worker>()
/** Tasks whose output is no text, so that nobody can say how much of it was passed on. */
const unmeasured = new Set<string>()

const conductor = new Conductor(JSON.parse(process.env.LAB_CONDUCTOR ?? '{}'))

// A conductor in a process of its own, which the laboratory kills whenever it likes. It keeps nothing on disk.
function tell(event: ConductorEvent): void {
  process.send?.(event)
}

function describe(error: unknown): string {
  if (!isConductorError(error)) return String(error)
  return `${error.code}${error.retryable ? ' (retryable)' : ''}: ${error.message}`
}

async function obey(order: ConductorOrder): Promise<void> {
  if (order.do === 'spawn') return await spawn(order)
  if (order.do === 'kill') return await kill(order)
  if (order.do === 'meddle') return await meddle(order)
  for (const { taskId, seen } of order.tasks) if (seen === undefined) unmeasured.add(taskId)
  if (order.how === 'recover') return await recover(order.tasks)
  await Promise.all(order.tasks.map(attach))
}

async function spawn({ taskId, kind, spawn }: OrderTo<'spawn'>): Promise<void> {
  const lost = spawn.retriesLost ?? 0
  if (spawn.rereads === true) unmeasured.add(taskId)
  try {
    const worker = await conductor.spawnWorker({
      taskId,
      access: kind === 'keys' ? 'env' : 'presigned',
      graceMs: 1_000,
      files: spawn.files,
      env: spawn.env,
      outputs: spawn.outputs,
      ifExists: 'attach',
      ...(spawn.volume === undefined ? {} : { volume: spawn.volume }),
      ...(spawn.undeclared === undefined ? {} : { undeclared: spawn.undeclared }),
      ...(lost === 0 ? {} : { command: spawn.command, retries: { lost } }),
    })
    listen(worker, FROM_START)
    if (worker.state === 'ready') await worker.start(spawn.command, { outputs: spawn.outputs })
    await seeToItsEnd(worker)
  } catch (error) {
    tell({ event: 'not running', taskId, problem: describe(error) })
  }
}

async function attach({ taskId, seen }: TakenTask): Promise<void> {
  let idle = 0
  for (;;) {
    try {
      const worker = await conductor.attach(taskId, {
        stdoutOffsetBytes: seen?.stdout ?? 0,
        stderrOffsetBytes: seen?.stderr ?? 0,
      })
      // Its command may be about to begin; one that never does is seen then.
      if (worker.state === 'ready' && ++idle < MAX_IDLE) {
        await worker.detach()
        await delay(PAUSE_MS)
        continue
      }
      listen(worker, seen)
      return await seeToItsEnd(worker)
    } catch (error) {
      if (isConductorError(error) && ['NOT_FOUND', 'SANDBOX_GONE'].includes(error.code)) {
        tell({ event: 'absent', taskId })
        return
      }
      tell({ event: 'problem', taskId, problem: `attach: ${describe(error)}` })
      // One that E2B made only after its conductor was gone, and after all were recovered.
      if (isConductorError(error) && error.message.includes('left to recover()')) await recover([])
      await delay(PAUSE_MS)
    }
  }
}

/** E2B may be out of reach at the moment. */
async function untilRecovered(onWorker: (worker: Worker) => void): ReturnType<Conductor['recover']> {
  for (;;) {
    try {
      return await conductor.recover({ onWorker })
    } catch (error) {
      tell({ event: 'problem', taskId: '', problem: `recover: ${describe(error)}` })
      await delay(PAUSE_MS)
    }
  }
}

async function recover(tasks: readonly TakenTask[]): Promise<void> {
  const told = new Map<string, Worker>()
  const recovery = await untilRecovered((worker) => {
    told.set(worker.taskId, worker)
    listen(worker, FROM_START)
  })
  const { receipts, failures } = recovery
  const found = new Set<string>()
  for (const worker of recovery.workers) {
    found.add(worker.taskId)
    void seeToItsEnd(worker)
  }
  for (const receipt of receipts) {
    found.add(receipt.taskId)
    tell({
      event: 'receipt',
      taskId: receipt.taskId,
      receipt: toLabReceipt(receipt, told.get(receipt.taskId)?.attempt),
      heard: told.has(receipt.taskId),
    })
  }
  for (const { taskId, error } of failures)
    tell({ event: 'problem', taskId, problem: `recover: ${describe(error)}` })
  // What could not be recovered at once is taken up by itself, until that goes well.
  const left = tasks.filter(({ taskId }) => !found.has(taskId))
  await Promise.all(
    left.map(({ taskId, seen }) => attach({ taskId, seen: told.has(taskId) ? heard.get(taskId) : seen })),
  )
}

async function kill({ taskId }: OrderTo<'kill'>): Promise<void> {
  let well = false
  try {
    const worker = workers.get(taskId)
    // Whoever sees to its end gets the same receipt, and tells it.
    if (worker?.state === 'running') {
      await worker.kill()
      well = true
    }
  } catch (error) {
    tell({ event: 'problem', taskId, problem: `kill: ${describe(error)}` })
  }
  tell({ event: 'obeyed', taskId, well })
}

async function meddle({ taskId, how, run }: OrderTo<'meddle'>): Promise<void> {
  let well = false
  try {
    if (how === 'recover') {
      const { workers: all } = await conductor.recover()
      void Promise.allSettled(all.map((worker) => worker.wait().then(() => worker.terminate())))
      well = true
    } else {
      const worker = await conductor.attach(taskId)
      well = true
      if (how === 'terminate') await worker.terminate()
      else {
        await worker.wait()
        await worker.run(run.command, { env: run.env })
        await worker.detach()
      }
    }
  } catch (error) {
    tell({ event: 'problem', taskId, problem: `meddle: ${describe(error)}` })
  }
  tell({ event: 'obeyed', taskId, well })
}

function tellRunning({ taskId, sandboxId, attempt }: Worker, from: 'start' | 'seen'): void {
  tell({ event: 'running', taskId, sandboxId, life: attempt, from })
}

/** Passes on what a worker prints, which comes from the given byte on. */
function listen(worker: Worker, from: SeenBytes | undefined): void {
  const { taskId } = worker
  // Recovery may meet one twice, when it was cut short and is done again.
  if (workers.get(taskId) === worker) return
  workers.set(taskId, worker)
  const isFromStart = from === undefined || from === FROM_START
  tellRunning(worker, isFromStart ? 'start' : 'seen')
  heard.set(taskId, unmeasured.has(taskId) ? undefined : { ...(from ?? FROM_START) })
  const pass = (stream: 'stdout' | 'stderr', text: string): void => {
    const bytes = heard.get(taskId)
    if (bytes !== undefined) bytes[stream] += Buffer.byteLength(text)
    tell({ event: 'output', taskId, stream, text })
  }
  let isLost = false
  worker.on('state', (state) => {
    if (state === 'retrying') {
      isLost = true
      if (heard.get(taskId) !== undefined) heard.set(taskId, { ...FROM_START })
      tell({ event: 'retrying', taskId })
    } else if (state === 'running' && isLost) tellRunning(worker, 'start')
  })
  worker.on('exit', () => tell({ event: 'exit', taskId }))
  worker.on('stdout', (text) => pass('stdout', text))
  worker.on('stderr', (text) => pass('stderr', text))
}

async function seeToItsEnd(worker: Worker): Promise<void> {
  const { taskId } = worker
  try {
    await worker.wait()
  } catch (error) {
    tell({ event: 'problem', taskId, problem: `wait: ${describe(error)}` })
    // It may run still, and to end it would kill it.
    if (worker.state !== 'lost') {
      await worker.detach()
      return await attach({ taskId, seen: heard.get(taskId) })
    }
  }
  for (;;) {
    try {
      const receipt = await worker.terminate()
      tell({ event: 'receipt', taskId, receipt: toLabReceipt(receipt, worker.attempt), heard: true })
      return
    } catch (error) {
      tell({ event: 'problem', taskId, problem: `terminate: ${describe(error)}` })
      await delay(PAUSE_MS)
    }
  }
}

function toLabReceipt(receipt: Receipt, life: number | undefined): LabReceipt {
  const { outcome, exitCode, sealed, cause, results, undelivered, missingOutputs, failedOutputs } = receipt
  return {
    life,
    sealed,
    outcome,
    exitCode,
    cause,
    results: results.map(({ key, sha256, tiers }) => ({ key, sha256, tiers })),
    undelivered,
    missingOutputs,
    failedOutputs,
  }
}

process.on('message', (order: ConductorOrder) => void obey(order))
// Ends that S3 could not take are written down before it goes.
process.once('disconnect', () => void conductor.close({ timeoutMs: CLOSE_MS }).finally(() => process.exit()))
tell({ event: 'started' })
