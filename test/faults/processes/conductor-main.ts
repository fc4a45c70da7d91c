import { setTimeout as delay } from 'node:timers/promises'
import type { Receipt } from '../../../src/conductor/receipt.js'
import type { Worker } from '../../../src/conductor/worker.js'
import { Conductor, isConductorError } from '../../../src/index.js'
import type { ConductorEvent, ConductorOrder, LabReceipt } from '../messages.js'

/** Pause between two attempts to end a worker whose results cannot be delivered yet. */
const TERMINATE_PAUSE_MS = 300

const conductor = new Conductor(JSON.parse(process.env.LAB_CONDUCTOR ?? '{}'))

// A conductor in a process of its own, which the laboratory kills whenever it likes. It keeps nothing on disk.
function tell(event: ConductorEvent): void {
  process.send?.(event)
}

function describe(error: unknown): string {
  return isConductorError(error) ? `${error.code}: ${error.message}` : String(error)
}

async function obey(order: ConductorOrder): Promise<void> {
  if (order.do === 'close') return await conductor.close()
  if (order.do === 'recover') return
  const { taskId, kind, spawn } = order
  let worker: Worker
  try {
    worker = await conductor.spawnWorker({
      taskId,
      access: kind === 'keys' ? 'env' : 'presigned',
      graceMs: 1_000,
      // Output may come as soon as the command runs, and nobody listens before this resolves.
      files: spawn.files,
      env: spawn.env,
      outputs: spawn.outputs,
      ...(spawn.volume === undefined ? {} : { volume: spawn.volume }),
    })
    listen(worker)
    await worker.start(spawn.command, { outputs: spawn.outputs })
  } catch (error) {
    tell({ event: 'not-spawned', taskId, problem: describe(error) })
    return
  }
  tell({ event: 'spawned', taskId, sandboxId: worker.sandboxId })
  await seeToItsEnd(worker)
}

function listen(worker: Worker): void {
  const { taskId } = worker
  worker.on('stdout', (text) => tell({ event: 'output', taskId, stream: 'stdout', text }))
  worker.on('stderr', (text) => tell({ event: 'output', taskId, stream: 'stderr', text }))
}

async function seeToItsEnd(worker: Worker): Promise<void> {
  const { taskId } = worker
  try {
    const { exitCode, outcome } = await worker.wait()
    tell({ event: 'exit', taskId, exitCode, outcome })
  } catch (error) {
    tell({ event: 'problem', taskId, problem: `wait: ${describe(error)}` })
  }
  for (;;) {
    try {
      const receipt = await worker.terminate()
      tell({ event: 'receipt', taskId, receipt: toLabReceipt(receipt) })
      return
    } catch (error) {
      tell({ event: 'problem', taskId, problem: `terminate: ${describe(error)}` })
      await delay(TERMINATE_PAUSE_MS)
    }
  }
}

function toLabReceipt(receipt: Receipt): LabReceipt {
  const { outcome, exitCode, results, undelivered, missingOutputs, failedOutputs } = receipt
  return {
    outcome,
    exitCode,
    results: results.map(({ key, sha256, tiers }) => ({ key, sha256, tiers })),
    undelivered: undelivered.map(({ key }) => ({ key })),
    missingOutputs,
    failedOutputs,
  }
}

process.on('message', (order: ConductorOrder) => void obey(order))
process.once('disconnect', () => process.exit())
tell({ event: 'started' })
