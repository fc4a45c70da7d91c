import type { CallOptions } from '../../call-options.js'
import { DEATH_CERTIFICATE_NAME } from '../../protocol/death-certificate.js'
import { compareKeys, splitKey } from '../../protocol/key.js'
import type { Manifest, ManifestAttempt } from '../../protocol/manifest.js'
import type { ResultRecord } from '../../protocol/record.js'
import type { ManifestStore } from '../../stores/manifest-store.js'
import type { GivenUp, LackingOutputs, WorkerExit } from './receipt.js'

/** More of a kind would make a manifest too large to read; the receipt names all. */
const MAX_LACKING = 1000

/** What one sandbox of a task came to. */
export interface SealOptions extends CallOptions {
  /** Known results that were given up. */
  readonly undelivered?: readonly GivenUp[] | undefined
  /** Undefined where nobody asked the sandbox. */
  readonly outputs?: LackingOutputs | undefined
  readonly taskId: string
  readonly attempt: number
  /** Empty where nobody lived to see which it was; the spawn then tells. */
  readonly sandboxId: string
  readonly spawnId: string
  /** Name of the volume that is its spool, if one is. */
  readonly volume?: string | undefined
  /** Where records may be of earlier sandboxes, too: since when they are this one's. */
  readonly beganAt?: string | undefined
  readonly exit: WorkerExit
  /** Kept results that the sandbox held, or that were found of one that is gone. */
  readonly records: readonly ResultRecord[]
  /** False when the sandbox was gone before anybody asked what it holds. */
  readonly drained: boolean
}

/**
 * Writes a sandbox's end into its task's manifest, beside what earlier sandboxes of the task left. Where another conductor
 * sealed this very sandbox before it went, that one's word stands.
 */
export async function sealTask(manifests: ManifestStore, options: SealOptions): Promise<Manifest> {
  const { signal } = options
  const change = (present: Manifest | undefined): Manifest | undefined => addAttempt(present, options)
  // A task has one sandbox as a rule, and then nothing is there yet.
  const sealed = await manifests.update(options.taskId, change, { signal, expectNone: true })
  return sealed as Manifest
}

/** What was written down of a sandbox, by whomever. */
export function findAttempt(
  manifest: Manifest | undefined,
  sandbox: Pick<SealOptions, 'sandboxId' | 'spawnId'>,
): ManifestAttempt | undefined {
  return manifest?.attempts.find((attempt) => isOf(attempt, sandbox))
}

/** Keys of which it is written down which sandbox left them. */
export function attributedKeys(manifest: Manifest | undefined): readonly string[] {
  return manifest?.attempts.flatMap(({ keys }) => keys) ?? []
}

/** Key of the certificate that a sandbox's end was sealed with, if it was with one. */
export function certificateOf(attempt: ManifestAttempt | undefined): string | undefined {
  const keys = attempt?.keys ?? []
  return keys.find((key) => splitKey(key).name === DEATH_CERTIFICATE_NAME)
}

/** One that was missed, or turned up after all, is known by its spawn. */
function isOf(
  { sandbox_id, spawn_id }: ManifestAttempt,
  { sandboxId, spawnId }: Pick<SealOptions, 'sandboxId' | 'spawnId'>,
): boolean {
  return sandboxId === '' || sandbox_id === '' ? spawn_id === spawnId : sandbox_id === sandboxId
}

function addAttempt(present: Manifest | undefined, options: SealOptions): Manifest | undefined {
  const {
    taskId,
    sandboxId,
    spawnId,
    beganAt,
    exit,
    records,
    drained,
    volume,
    undelivered = [],
    outputs,
  } = options
  const before = present?.attempts ?? []
  const own = before.find((other) => isOf(other, options))
  if (!drained && own !== undefined) return undefined
  const now = new Date().toISOString()
  const others = before.filter((other) => other !== own)
  const status =
    exit.exitCode === null && exit.signal === null ? null : { code: exit.exitCode, signal: exit.signal }
  const attributed = new Set(others.flatMap(({ keys }) => keys))
  const beganMs = beganAt === undefined ? Number.NEGATIVE_INFINITY : Date.parse(beganAt)
  const left = records.filter(({ created_at }) => Date.parse(created_at) >= beganMs)
  const mine: ManifestAttempt = {
    attempt: numberOf(options, others),
    sandbox_id: sandboxId,
    spawn_id: spawnId,
    ended_at: now,
    outcome: exit.outcome,
    exit: status,
    cause: exit.cause ?? null,
    ...(volume === undefined ? {} : { volume }),
    keys: [...new Set([...(own?.keys ?? []), ...left.map(({ key }) => key)])].filter(
      (key) => !attributed.has(key),
    ),
    missing_outputs: some(outputs?.missingOutputs),
    failed_outputs: some(outputs?.failedOutputs),
    undelivered: some(undelivered),
  }
  const attempts = [...others, mine]
  // The end of an earlier sandbox may be written down after that of the last, which is the task's.
  const last = attempts.reduce((latest, next) => (next.attempt >= latest.attempt ? next : latest))
  const byKey = new Map([...(present?.results ?? []), ...records].map((record) => [record.key, record]))
  return {
    v: 1,
    task_id: taskId,
    sealed_at: now,
    outcome: last.outcome,
    exit: last.exit,
    // What was given up may turn up: S3 may have taken it without a word. What another sandbox may have left unseen stays so, also
    // while the end of one that came before is not written down yet.
    complete:
      drained &&
      undelivered.length === 0 &&
      // A command whose end nobody saw may have gone on storing while stock was taken.
      (status !== null || exit.outcome === 'idle') &&
      last.attempt === attempts.length &&
      (others.length === 0 || present?.complete === true),
    attempts,
    ...(present?.deleting === undefined ? {} : { deleting: present.deleting }),
    results: [...byKey.values()].sort((a, b) => compareKeys(a.key, b.key)),
  }
}

/** What is worth writing down of a list. */
function some<T>(list: readonly T[] = []): readonly T[] | undefined {
  return list.length === 0 ? undefined : list.slice(0, MAX_LACKING)
}

/** Its own, unless another has that: one that was begun while S3 was away could not count those before it. */
function numberOf({ attempt }: SealOptions, others: readonly ManifestAttempt[]): number {
  const taken = others.map((other) => other.attempt)
  return taken.includes(attempt) ? Math.max(...taken) + 1 : attempt
}
