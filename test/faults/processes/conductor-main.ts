import { setTimeout as delay } from 'node:timers/promises'
import type { Receipt } from '../../../src/conductor/end/receipt.js'
import type { Worker } from '../../../src/conductor/worker/worker.js'
import { Conductor, isConductorError } from '../../../src/index.js'
import type { ConductorEvent, ConductorOrder, LabReceipt } from '../messages.js'

/** Pause between two attempts at what failed for now. */
const PAUSE_MS = 300

/** How often a worker is looked at that has had no command. */
const MAX_IDLE = 20
/** How long it may take to end when it is asked to. */
const CLOSE_MS = 30_000

type TakenTask = Extract<ConductorOrder, { do: 'take over' }>['tasks'][number]

const conductor = new Conductor(JSON.parse(process.env.LAB_CONDUCTOR ?? '{}'))

// A conductor in a process of its own, which the laboratory kills whenever it likes. It keeps nothing on disk.
function tell(event: ConductorEvent): void {
  process.send?.(event)
}

function describe(error: unknown): string {
  return isConductorError(error) ? `${error.code}: ${error.message}` : String(error)
}

async function obey(order: ConductorOrder): Promise<void> {
  if (order.do === 'spawn') return await spawn(order)
  if (order.how === 'recover') return await recover(order.tasks)
  await Promise.all(order.tasks.map(attach))
}

async function spawn({ taskId, kind, spawn }: Extract<ConductorOrder, { do: 'spawn' }>): Promise<void> {
  const lost = spawn.retriesLost ?? 0
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
      ...(lost === 0 ? {} : { command: spawn.command, retries: { lost } }),
    })
    tellRunning(worker, 'start')
    listen(worker)
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
        stdoutOffsetBytes: seen.stdout,
        stderrOffsetBytes: seen.stderr,
      })
      // Its command may be about to begin; one that never does is seen then.
      if (worker.state === 'ready' && ++idle < MAX_IDLE) {
        await worker.detach()
        await delay(PAUSE_MS)
        continue
      }
      tellRunning(worker, 'seen')
      listen(worker)
      return await seeToItsEnd(worker)
    } catch (error) {
      if (isConductorError(error) && ['NOT_FOUND', 'SANDBOX_GONE'].includes(error.code)) {
        tell({ event: 'absent', taskId })
        return
      }
      tell({ event: 'problem', taskId, problem: `attach: ${describe(error)}` })
      await delay(PAUSE_MS)
    }
  }
}

/** E2B may be out of reach at the moment. */
async function untilRecovered(): ReturnType<Conductor['recover']> {
  for (;;) {
    try {
      return await conductor.recover()
    } catch (error) {
      tell({ event: 'problem', taskId: '', problem: `recover: ${describe(error)}` })
      await delay(PAUSE_MS)
    }
  }
}

async function recover(tasks: readonly TakenTask[]): Promise<void> {
  const { workers, receipts, failures } = await untilRecovered()
  const found = new Set<string>()
  for (const worker of workers) {
    found.add(worker.taskId)
    tellRunning(worker, 'start')
    listen(worker)
    void seeToItsEnd(worker)
  }
  for (const receipt of receipts) {
    found.add(receipt.taskId)
    tell({
      event: 'receipt',
      taskId: receipt.taskId,
      receipt: toLabReceipt(receipt, undefined),
      heard: false,
    })
  }
  for (const { taskId, error } of failures)
    tell({ event: 'problem', taskId, problem: `recover: ${describe(error)}` })
  // What could not be recovered at once is taken up by itself, until that goes well.
  await Promise.all(tasks.filter(({ taskId }) => !found.has(taskId)).map(attach))
}

function tellRunning({ taskId, sandboxId, attempt }: Worker, from: 'start' | 'seen'): void {
  tell({ event: 'running', taskId, sandboxId, life: attempt, from })
}

function listen(worker: Worker): void {
  const { taskId } = worker
  let isLost = false
  worker.on('state', (state) => {
    if (state === 'retrying') {
      isLost = true
      tell({ event: 'retrying', taskId })
    } else if (state === 'running' && isLost) tellRunning(worker, 'start')
  })
  worker.on('stdout', (text) => tell({ event: 'output', taskId, stream: 'stdout', text }))
  worker.on('stderr', (text) => tell({ event: 'output', taskId, stream: 'stderr', text }))
}

async function seeToItsEnd(worker: Worker): Promise<void> {
  const { taskId } = worker
  try {
    await worker.wait()
    tell({ event: 'exit', taskId })
  } catch (error) {
    tell({ event: 'problem', taskId, problem: `wait: ${describe(error)}` })
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
    undelivered: undelivered.map(({ key }) => ({ key })),
    missingOutputs,
    failedOutputs,
  }
}

process.on('message', (order: ConductorOrder) => void obey(order))
// Ends that S3 could not take are written down before it goes.
process.once('disconnect', () => void conductor.close({ timeoutMs: CLOSE_MS }).finally(() => process.exit()))
tell({ event: 'started' })
