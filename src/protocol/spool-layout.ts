import { createHash } from 'node:crypto'
import { byteLength, RECORD_SUFFIX } from './key.js'

/** Longest file name on Linux file systems, in bytes. */
const MAX_FILE_NAME_BYTES = 255
/** Holds everything in a spool that is not a result; no task id starts with a dot. */
const WORKER_FOLDER = '.worker'

/**
 * File name of a result in its task's folder. It is the key's own `{timestamp}-{name}`; only where that would leave no room
 * for the record's ending in a file name does `{timestamp}-~{sha256 of the name}` stand for it, and the record tells the key.
 */
export function spoolFileName(timestamp: string, name: string): string {
  const plain = `${timestamp}-${name}`
  if (byteLength(plain) + RECORD_SUFFIX.length <= MAX_FILE_NAME_BYTES) return plain
  return `${timestamp}-~${createHash('sha256').update(name).digest('hex')}`
}

/** In most sandboxes memory, and so has room where the disk is full. */
export const MEMORY_FOLDER = '/dev/shm'

/** Folder, in that for temporary files and in {@link MEMORY_FOLDER}, of a file for each key that is taken by a result outside the spool; by {@link claimToken}. */
export const CLAIMS_FOLDER = 'persist-result-claims'

/** Stands for a result's file name in {@link CLAIMS_FOLDER}. */
export function claimToken(taskId: string, file: string): string {
  return createHash('sha256').update(`${taskId}/${file}`).digest('hex')
}

/** Folder of one worker inside the spool: grant, tools, and a folder for each command it ran. */
export function workerFolder(localDir: string, taskId: string): string {
  return `${localDir}/${WORKER_FOLDER}/${taskId}`
}

/** Which command of a worker: its task, its number, and the spool in which its worker's folder lies. */
export interface RunPlace {
  readonly taskId: string
  readonly localDir: string
  readonly runId: string
}

/** Folder of one supervised command; {@link RUN_FILES} are in it. */
export function runFolder({ localDir, taskId, runId }: RunPlace): string {
  return `${workerFolder(localDir, taskId)}/${WORKER_FILES.runs}/${runId}`
}

/** Folders inside a task's folder, beside its results; no result's file name starts with a dot. */
export const SPOOL_FOLDERS = {
  /** A file for each result that no remote tier has, by the result's file name; it holds the process that is delivering, if any. */
  pending: '.pending',
  /** How far each unfinished upload in parts is, by the result's file name. */
  uploads: '.upload',
} as const

/** Names inside a worker's folder. */
export const WORKER_FILES = {
  grant: 'grant.json',
  /** Public; results of the task are encrypted for it. Empty where they are not. */
  encryptionKey: 'encryption-key',
  /** What another conductor needs to go on with this worker. */
  worker: 'worker.json',
  /** Written before anything runs; what changed later is newer. */
  born: 'born',
  bin: 'bin',
  runs: 'runs',
  /**
   * With the id of a fence after it: a conductor is about to end this sandbox, and no command may begin. Holds when it last said
   * so, in whole seconds of the sandbox's uptime, and stands for {@link FENCE_SECONDS} from then.
   */
  finishing: 'finishing-',
  /** With the id of a fence after it: as long as that stands, what comes later is not in the list of whoever put it up. */
  sealed: 'sealed-',
  /** Locked by the drain that is under way. */
  draining: 'draining',
} as const

/** How long a fence stands of which nothing more is heard; its owner ends nothing on the strength of an older one. */
export const FENCE_SECONDS = 120

/** What the id of a fence may look like. */
export const FENCE_ID = /^[A-Za-z0-9-]{1,100}$/

/** Names inside the folder of one supervised command, {@link runFolder}. */
export const RUN_FILES = {
  stdout: 'stdout.log',
  stderr: 'stderr.log',
  exit: 'exit.json',
  heartbeat: 'heartbeat',
  /** Process id of the supervisor, written before it starts. */
  pid: 'pid',
  /** Id of the sandbox in which it ran: on a volume lie those of earlier ones. */
  sandbox: 'sandbox',
  /** How often the kernel had killed for memory before it started, and how long the machine was up: two numbers. */
  before: 'before',
} as const

/** How a supervised command ended; written once, with sync and rename, as `exit.json`. */
export interface ExitRecord {
  readonly v: 1
  readonly task_id: string
  readonly run_id: string
  /** Null when a signal ended it. */
  readonly code: number | null
  /** For example `SIGKILL`; null when it exited by itself. */
  readonly signal: string | null
  /** ISO 8601, UTC. */
  readonly started_at: string
  /** ISO 8601, UTC. */
  readonly ended_at: string
}
