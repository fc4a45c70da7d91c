import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { knownBinaryLine, knownBytes, knownFiles, knownLine } from '../content.js'
import type { WorkerOrder } from '../messages.js'
import {
  contentLabel,
  metadataOf,
  type Operation,
  outputBytes,
  type PersisterFault,
  planFault,
  planOperation,
  UNDECLARED_FILE,
  UNDECLARED_FOLDER,
  undeclaredBytes,
} from '../plan.js'
import { NEEDS_NODE, NO_ROOM } from '../refusals.js'
import type { CallEnd, PersistCall, RunningCall } from './call.js'
import { ModuleProcess } from './module-call.js'
import { serveModuleCalls } from './module-process.js'
import { callProgram } from './program-call.js'
import { report, untilLetGo } from './report.js'

/** So often what there is no room for is tried; a disk that is full for good stays full. */
const MAX_ATTEMPTS_WITHOUT_ROOM = 4
/** So long everything else is tried; no fault lasts as long. */
const PATIENCE_MS = 60_000
/** How a call ended, and what was done to it. */
interface FaultedEnd {
  readonly end: CallEnd
  readonly fault: PersisterFault
}

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
    let operation = planOperation(seed, number)
    const startedMs = performance.now()
    for (let attempt = 0, withoutRoom = 0; performance.now() - startedMs < PATIENCE_MS; attempt++) {
      const { end, fault } = await attemptOnce(order, modules, operation, attempt, life)
      const status = end.status !== 'died' ? end.status : fault === 'kill' ? 'killed' : 'crashed'
      const detail = end.status === 'acknowledged' ? { result: end.result } : { said: end.said }
      await report(reportUrl, {
        kind: 'outcome',
        outcome: { taskId, life, operation: number, attempt, via: operation.via, fault, status, ...detail },
      })
      if (status === 'acknowledged') break
      if (end.status === 'refused' && NO_ROOM.test(end.said) && ++withoutRoom === MAX_ATTEMPTS_WITHOUT_ROOM)
        break
      if (end.status === 'refused' && NEEDS_NODE.test(end.said)) operation = { ...operation, via: 'node' }
      // A tier that is down for a moment may be up at the next.
      if (status === 'refused') await delay(200)
    }
    await report(reportUrl, { kind: 'done', taskId, operation: number })
    print(order.printsBinary === true ? knownBinaryLine(seed, number) : Buffer.from(knownLine(seed, number)))
    if (operation.flushAfter) {
      spawnSync('node', [`${binFolder()}/persist-result.js`, '--flush', '--quiet'], { stdio: 'ignore' })
    }
  }
  modules.end()
  if (order.isFurther === true) return
  mkdirSync(UNDECLARED_FOLDER, { recursive: true })
  writeFileSync(join(UNDECLARED_FOLDER, UNDECLARED_FILE), undeclaredBytes(seed, taskId, life))
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
): Promise<FaultedEnd> {
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
): Promise<FaultedEnd> {
  const fault = planFault(seed, operation.number, attempt)
  if (fault.kind === 'none') return { end: await running.end, fault: 'none' }
  let hit: PersisterFault = 'none'
  const over = new AbortController()
  const timer = delay(fault.at * usualMs[operation.via], undefined, { signal: over.signal }).then(
    async () => {
      if (!signalGroup(running.pid, fault.kind === 'kill' ? 'SIGKILL' : 'SIGSTOP')) return
      hit = fault.kind
      // Whoever calls next must not meet one that is dying.
      if (fault.kind === 'kill') return await running.gone
      await delay(fault.frozenMs)
      signalGroup(running.pid, 'SIGCONT')
    },
    () => {
      // It ended before its fault.
    },
  )
  try {
    const end = await running.end
    over.abort()
    await timer
    return { end, fault: hit }
  } finally {
    over.abort()
  }
}

/** False when there is nobody any more. */
function signalGroup(pid: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(-pid, signal)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    return false
  }
}

/** Standard output is a pipe that may be full, and what is printed has to be printed before this process ends. */
function print(bytes: Buffer): void {
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
