import { knownBytes } from './content.js'
import { Dice } from './random.js'

/** How an operation calls the persister: the module in a longer-lived process, or one of the two programs. */
export type Via = 'module' | 'node' | 'sh'
/** What is handed to the persister. */
export type Shape = 'file' | 'stdin' | 'directory'
/** What happens to the persister of an operation; the rest of the faults hit everything around it. */
export type PersisterFault = 'none' | 'kill' | 'freeze'

/** One result to be persisted, and what is done to whoever does it. */
export interface Operation {
  readonly number: number
  readonly via: Via
  readonly shape: Shape
  readonly sizeBytes: number
  readonly name: string
  /** Too much for S3's user metadata, so that the record has to lie beside the object. */
  readonly bigMetadata: boolean
  readonly flushAfter: boolean
}

/** Decides an operation; nothing but the seed and its number go into it. */
export function planOperation(seed: number, number: number): Operation {
  const dice = new Dice(seed, 'operation', number)
  const shape = dice.weighted<Shape>([
    ['file', 60],
    ['stdin', 25],
    ['directory', 15],
  ])
  const limit = dice.weighted([
    [0, 4],
    [1_000, 50],
    [64_000, 30],
    [1_000_000, 13],
    [4_000_000, 3],
  ])
  return {
    number,
    via: dice.weighted<Via>([
      ['module', 60],
      ['node', 22],
      ['sh', 18],
    ]),
    shape,
    sizeBytes: dice.between(0, limit),
    // Names repeat within a task, and within a second, so that keys have to move on.
    name: dice.weighted([
      ['report.bin', 40],
      ['Messwerte für heute.csv', 20],
      [`operation-${number}`, 30],
      ['x'.repeat(240), 5],
      ['a & b;$(c) %2F+?.txt', 5],
    ]),
    bigMetadata: dice.chance(0.05),
    flushAfter: dice.chance(0.02),
  }
}

/** What happens to the persister in one attempt at an operation. */
export interface PlannedFault {
  readonly kind: PersisterFault
  /** When, as a share of the time that such a call usually takes. */
  readonly at: number
  readonly frozenMs: number
}

/** Decides the fault of an attempt. */
export function planFault(seed: number, number: number, attempt: number): PlannedFault {
  const dice = new Dice(seed, 'fault', number, attempt)
  const kind = dice.weighted<PersisterFault>([
    ['none', 86],
    ['kill', 11],
    ['freeze', 3],
  ])
  return { kind, at: dice.fraction() * 1.2, frozenMs: dice.between(20, 400) }
}

/** Names one sandbox of a worker; a worker that is begun again in another has a further life. */
export function lifeOf(taskId: string, life = 1): string {
  return `${taskId}, life ${life}`
}

/** Names the bytes of one attempt; no two attempts have the same, so that a result stored twice is seen. */
export function contentLabel(seed: number, number: number, attempt: number, life = 1): string {
  return `content ${seed} ${number} ${attempt} ${life}`
}

/** The user's metadata of one attempt, by which the checker knows a result again. */
export function metadataOf(
  operation: Operation,
  seed: number,
  attempt: number,
  life = 1,
): Record<string, unknown> {
  const { number, bigMetadata } = operation
  const filler = bigMetadata
    ? { filler: knownBytes(`metadata ${seed} ${number}`, 1_500).toString('hex') }
    : {}
  return { operation: number, attempt, life, grüße: 'ß "\\ ', ...filler }
}

/** How a worker may reach stores, and what its acknowledgments then mean. */
export type WorkerKind =
  /** By a grant; what no store takes is acknowledged in the spool. */
  | 'grant'
  /** By a grant, with `--require remote`: it acknowledges only what lies beyond the sandbox. */
  | 'remote'
  /** By a grant, with its spool on a small volume that outlives the sandbox and fills up. */
  | 'volume'
  /** With keys in its environment. */
  | 'keys'

/** A worker: some operations in a row in one sandbox. */
export interface WorkerPlan {
  readonly index: number
  readonly kind: WorkerKind
  readonly exitCode: number
  /** Whether a sandbox may vanish although it is the only place of acknowledged results, which then go with it. */
  readonly expendable: boolean
  /** How often its command is begun again in another sandbox when the one it has is lost. */
  readonly retriesLost: number
  /** Whether it prints what is no UTF-8. */
  readonly printsBinary: boolean
  /** Whether it leaves a file that nobody declared, and has such files kept. */
  readonly leavesUndeclared: boolean
}

const FIRST_KINDS: readonly WorkerKind[] = ['volume', 'grant', 'remote', 'keys']

/** Decides a worker. */
export function planWorker(seed: number, index: number): WorkerPlan {
  const dice = new Dice(seed, 'worker', index)
  const byChance = dice.weighted<WorkerKind>([
    ['grant', 40],
    ['remote', 25],
    ['volume', 15],
    ['keys', 20],
  ])
  // Some faults hit but one kind, so that each is there from the beginning, and the rarest again and again.
  const kind = FIRST_KINDS[index] ?? (index % 4 === 0 ? 'volume' : byChance)
  return {
    index,
    kind,
    exitCode: dice.weighted([
      [0, 3],
      [dice.between(1, 120), 1],
    ]),
    expendable: kind === 'grant' && dice.chance(0.08),
    retriesLost: dice.chance(0.5) ? dice.between(1, 3) : 0,
    printsBinary: dice.chance(0.2),
    leavesUndeclared: dice.chance(0.2),
  }
}

/** Names a worker's task. */
export function taskIdOf(seed: number, index: number): string {
  return `w${index}-${seed}`
}

/** The worker that a task, or one of its lives, is of; undefined for what is no task of a round. */
export function planOf(seed: number, taskOrLife: string): WorkerPlan | undefined {
  const index = /^w(\d+)-/.exec(taskOrLife)?.[1]
  return index === undefined ? undefined : planWorker(seed, Number(index))
}

/** Where a worker leaves a file that nobody declared, and its name. */
export const UNDECLARED_FOLDER = '/workspace/left'
export const UNDECLARED_FILE = 'undeclared.bin'

/** Bytes of the file that a worker leaves without having declared it. */
export function undeclaredBytes(seed: number, taskId: string, life = 1): Buffer {
  return knownBytes(`undeclared ${seed} ${taskId} ${life}`, 5_000)
}

/** Bytes of the declared output that a worker leaves behind. */
export function outputBytes(seed: number, taskId: string, life = 1): Buffer {
  const dice = new Dice(seed, 'output', taskId, life)
  return knownBytes(`output ${seed} ${taskId} ${life}`, dice.between(1, 20_000))
}
