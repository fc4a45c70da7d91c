import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { knownBytes, knownFiles, knownLine } from '../content.js'
import type { WorkerOrder } from '../messages.js'
import { contentLabel, metadataOf, type Operation, outputBytes, planFault, planOperation } from '../plan.js'
import type { CallEnd, PersistCall, RunningCall } from './call.js'
import { ModuleProcess } from './module-call.js'
import { serveModuleCalls } from './module-process.js'
import { callProgram } from './program-call.js'
import { report, untilLetGo } from './report.js'

const MAX_ATTEMPTS = 4
/** Milliseconds that a call takes when nothing goes wrong; kills are spread over it. */
const usualMs = { module: 25, node: 200, sh: 500 }
const FOLDER = '/workspace/lab'

// The program that runs in a sandbox: one operation after the other, each reported as soon as it ended.
async function work(order: WorkerOrder): Promise<void> {
  const { seed, taskId, reportUrl } = order
  const life = lifeNumber()
  const modules = new ModuleProcess()
  mkdirSync(FOLDER, { recursive: true })
  for (const [i, number] of order.operations.entries()) {
    if (order.holds && i === order.operations.length >> 1) await untilLetGo(reportUrl)
    const operation = planOperation(seed, number)
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      const end = await attemptOnce(order, modules, operation, attempt, life)
      const fault = planFault(seed, number, attempt).kind
      const { status } = end
      const detail =
        end.status === 'acknowledged'
          ? { result: end.result }
          : end.status === 'refused'
            ? { said: end.said }
            : {}
      await report(reportUrl, {
        kind: 'outcome',
        outcome: { taskId, life, operation: number, attempt, via: operation.via, fault, status, ...detail },
      })
      if (status === 'acknowledged') break
      // A tier that is down for a moment may be up at the next.
      if (status === 'refused') await delay(200)
    }
    await report(reportUrl, { kind: 'done', taskId, operation: number })
    print(knownLine(seed, number))
    if (operation.flushAfter) {
      spawnSync('node', [`${binFolder()}/persist-result.js`, '--flush', '--quiet'], { stdio: 'ignore' })
    }
  }
  modules.end()
  writeFileSync(`/workspace/output.bin`, outputBytes(seed, taskId, life))
  await report(reportUrl, { kind: 'finished', taskId, life })
  process.exitCode = order.exitCode
}

async function attemptOnce(
  order: WorkerOrder,
  modules: ModuleProcess,
  operation: Operation,
  attempt: number,
  life: number,
): Promise<CallEnd> {
  const { number, shape, sizeBytes } = operation
  const label = contentLabel(order.seed, number, attempt, life)
  const path = join(FOLDER, `source-${number}-${attempt}`)
  if (shape === 'file') writeFileSync(path, knownBytes(label, sizeBytes))
  if (shape === 'directory') {
    for (const file of knownFiles(label, sizeBytes)) {
      mkdirSync(dirname(join(path, file.path)), { recursive: true })
      writeFileSync(join(path, file.path), file.bytes)
    }
  }
  const call: PersistCall = {
    via: operation.via,
    path: shape === 'stdin' ? '-' : path,
    input: shape === 'stdin' ? knownBytes(label, sizeBytes) : undefined,
    name: operation.name,
    metadata: metadataOf(operation, order.seed, attempt, life),
    requireRemote: order.kind === 'remote',
  }
  const running = call.via === 'module' ? modules.call(call) : callProgram(binFolder(), call)
  try {
    return await sufferFault(running, order.seed, operation, attempt)
  } finally {
    rmSync(path, { recursive: true, force: true })
  }
}

async function sufferFault(
  running: RunningCall,
  seed: number,
  operation: Operation,
  attempt: number,
): Promise<CallEnd> {
  const fault = planFault(seed, operation.number, attempt)
  if (fault.kind === 'none') return await running.end
  const over = new AbortController()
  const timer = delay(fault.at * usualMs[operation.via], undefined, { signal: over.signal }).then(
    async () => {
      if (fault.kind === 'kill') return signalGroup(running.pid, 'SIGKILL')
      signalGroup(running.pid, 'SIGSTOP')
      await delay(fault.frozenMs)
      signalGroup(running.pid, 'SIGCONT')
    },
    () => {
      // It ended before its fault.
    },
  )
  try {
    return await running.end
  } finally {
    over.abort()
    await timer
  }
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** Standard output is a pipe that may be full, and what is printed has to be printed before this process ends. */
function print(line: string): void {
  const bytes = Buffer.from(line)
  for (let done = 0; done < bytes.length; ) {
    try {
      done += writeSync(1, bytes, done)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
    }
  }
}

function workerFolder(): string {
  return `${process.env.WORKER_RESULTS_LOCAL_DIR}/.worker/${process.env.WORKER_ID}`
}

function binFolder(): string {
  return `${workerFolder()}/bin`
}

/** Which of the worker's sandboxes this is. */
function lifeNumber(): number {
  const record = JSON.parse(readFileSync(`${workerFolder()}/worker.json`, 'utf8')) as { attempt: number }
  return record.attempt
}

if (process.argv[2] === 'module') serveModuleCalls()
else void work(JSON.parse(process.env.LAB_ORDER ?? '') as WorkerOrder)
