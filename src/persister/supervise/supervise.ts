import { spawn } from 'node:child_process'
import { mkdir, utimes, writeFile } from 'node:fs/promises'
import { constants } from 'node:os'
import { systemCode } from '../../files/system-code.js'
import { type ExitRecord, RUN_FILES } from '../../protocol/spool-layout.js'
import { lenient } from '../cli/output.js'
import { describeError } from '../fs-error.js'
import { BoundedLog } from './bounded-log.js'
import { ExitFile } from './exit-file.js'
import { OutputCopy } from './output-copy.js'
import type { SignalRelay } from './signal-relay.js'
import { waitForRoom } from './wait-for-room.js'

const HEARTBEAT_EVERY_MS = 5_000
/** How long output may still come after the command's end from processes that it left behind. */
const LATE_OUTPUT_MS = 500

/** A command to be run and where its traces go. */
export interface Supervision {
  readonly command: readonly string[]
  readonly env: NodeJS.ProcessEnv
  readonly taskId: string
  readonly runId: string
  /** Folder of this run; created. */
  readonly folder: string
  readonly logLimitBytes: number
  /** Takes this process's signals already, and is attached to the command here. */
  readonly signals: SignalRelay
  readonly warn: (line: string) => void
}

/** Runs the command to its end; the record of it is on disk before this resolves, and before its logs are complete. */
export async function supervise(supervision: Supervision): Promise<ExitRecord> {
  const { folder, command, env, warn } = supervision
  await mkdir(folder, { recursive: true })
  const logs = {
    stdout: await BoundedLog.open(`${folder}/${RUN_FILES.stdout}`, supervision.logLimitBytes),
    stderr: await BoundedLog.open(`${folder}/${RUN_FILES.stderr}`, supervision.logLimitBytes),
  }
  const exitFile = new ExitFile(`${folder}/${RUN_FILES.exit}`)
  const stopHeartbeat = await startHeartbeat(`${folder}/${RUN_FILES.heartbeat}`)
  const startedAt = new Date().toISOString()
  const [file = '', ...args] = command
  // A group of its own, so that signals reach everything the command started.
  const child = spawn(file, args, { env, detached: true, stdio: ['inherit', 'pipe', 'pipe'] })
  supervision.signals.attach(child.pid)
  const copies = [
    new OutputCopy(child.stdout, lenient(process.stdout), logs.stdout, warn),
    new OutputCopy(child.stderr, lenient(process.stderr), logs.stderr, warn),
  ]
  const end = await new Promise<Pick<ExitRecord, 'code' | 'signal'>>((ended) => {
    child.once('exit', (code, signal) => ended({ code, signal }))
    child.once('error', (error) => {
      warn(`cannot run ${file}: ${describeError(error)}`)
      // As shells say it: 127 not found, 126 not executable.
      ended({ code: systemCode(error) === 'ENOENT' ? 127 : 126, signal: null })
    })
  })
  const record: ExitRecord = {
    v: 1,
    task_id: supervision.taskId,
    run_id: supervision.runId,
    code: end.code,
    signal: end.signal,
    started_at: startedAt,
    ended_at: new Date().toISOString(),
  }
  const text = `${JSON.stringify(record)}\n`
  await waitForRoom(() => exitFile.write(text)).catch((error: unknown) => {
    warn(`cannot write ${RUN_FILES.exit}: ${describeError(error)}`)
  })
  await settleCopies(copies)
  for (const log of [logs.stdout, logs.stderr]) {
    await log.close().catch((error: unknown) => warn(`cannot complete a log: ${describeError(error)}`))
  }
  supervision.signals.end()
  stopHeartbeat()
  return record
}

/** Exit status of a command as a shell would give it. */
export function statusOf({ code, signal }: Pick<ExitRecord, 'code' | 'signal'>): number {
  if (code !== null) return code
  const numbers: Readonly<Record<string, number>> = constants.signals
  return 128 + (signal === null ? 0 : (numbers[signal] ?? 0))
}

async function startHeartbeat(path: string): Promise<() => void> {
  await writeFile(path, '')
  const timer = setInterval(() => {
    const now = new Date()
    // A heartbeat that cannot be written shows as one that stopped, which is what it is for.
    utimes(path, now, now).catch(() => {})
  }, HEARTBEAT_EVERY_MS)
  timer.unref()
  return () => clearInterval(timer)
}

/** Waits for the rest of the output, but not for processes that the command left behind with its streams open. */
async function settleCopies(copies: readonly OutputCopy[]): Promise<void> {
  const ended = Promise.all(copies.map((copy) => copy.ended))
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>((done) => {
    timer = setTimeout(done, LATE_OUTPUT_MS)
  })
  await Promise.race([ended, late])
  clearTimeout(timer)
  await Promise.all(copies.map((copy) => copy.finish()))
}
