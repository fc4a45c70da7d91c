import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import type { Intent, SandboxIntent } from '../../protocol/intent.js'
import { taskIdProblem } from '../../protocol/key.js'
import { parseIntent } from '../../protocol/parse.js'
import { s3IntentKey } from '../../protocol/s3-layout.js'
import { Conflicts } from './conflicts.js'
import { listPages } from './list-pages.js'
import { deleteS3Document, type ExpectedEtag, readS3Document, writeS3Document } from './s3-documents.js'
import type { S3Location } from './s3-location.js'

const MAX_INTENT_BYTES = 64 * 1024
const SUFFIX = '.json'
/** More than a task has in all its life; what is beyond has to fit into the limit on reading. */
const MAX_EARLIER = 100

type SpawnName = Pick<SandboxIntent, 'task_id' | 'spawn_id'>

/** An intent as it lies in the store. */
export interface StoredIntent {
  /** Undefined once it is closed. */
  readonly intent: Intent | undefined
  readonly etag: string | undefined
}

/** Who has which task's worker; beside the manifests, where no worker's grant reaches. */
export class S3Intents {
  readonly #at: S3Location

  /** The location stays the caller's to close. */
  constructor(location: S3Location) {
    this.#at = location
  }

  /** Resolves `undefined` when nobody ever started the task under this name. */
  async read(taskId: string, { signal }: CallOptions = {}): Promise<StoredIntent | undefined> {
    const there = await readS3Document(this.#at, this.#key(taskId), MAX_INTENT_BYTES, signal)
    if (there === undefined) return undefined
    return { intent: there.text === '' ? undefined : parseIntent(there.text), etag: there.etag }
  }

  /** Writes it where `expected` is there, else rejects with `EXISTS`. Resolves with its tag. */
  async write(
    intent: Intent,
    expected: ExpectedEtag,
    { signal }: CallOptions = {},
  ): Promise<string | undefined> {
    return writeS3Document(this.#at, this.#key(intent.task_id), intent, { expected, signal })
  }

  /**
   * Takes a spawn's sandbox out of the task's intent, which is emptied with its last one. A known tag of an intent that has no
   * other saves reading it.
   */
  async close(
    { task_id: taskId, spawn_id: spawnId }: SpawnName,
    { etag, signal }: CallOptions & { readonly etag?: string | undefined } = {},
  ): Promise<void> {
    if (etag !== undefined) {
      try {
        await writeS3Document(this.#at, this.#key(taskId), undefined, { expected: etag, signal })
        return
      } catch (error) {
        // Changed since: by whoever is about to certify the same death, or because it is another's by now.
        if (!isConductorError(error) || error.code !== 'EXISTS') throw error
      }
    }
    await this.#change(
      taskId,
      (present) => {
        const others = present.filter(({ spawn_id }) => spawn_id !== spawnId)
        return others.length === present.length ? undefined : others
      },
      signal,
    )
  }

  /**
   * Writes down what is known of a sandbox, beside others of the task; resolves with the tag, where it is the only one. With
   * `onlyAsLatest` it rejects with `EXISTS` where the task has another by now, or this one counts as gone.
   */
  async note(
    sandbox: SandboxIntent,
    {
      etag,
      onlyAsLatest = false,
      signal,
    }: CallOptions & { readonly etag?: string | undefined; readonly onlyAsLatest?: boolean } = {},
  ): Promise<string | undefined> {
    if (etag !== undefined) {
      try {
        return await this.write(sandbox, etag, { signal })
      } catch (error) {
        if (!isConductorError(error) || error.code !== 'EXISTS') throw error
      }
    }
    const written = await this.#change(
      sandbox.task_id,
      (present) => {
        const before = present.find(({ spawn_id }) => spawn_id === sandbox.spawn_id)
        if (onlyAsLatest && (before === undefined || before !== present[0] || before.certificate_key)) {
          const by = present[0] === before ? undefined : present[0]?.conductor
          const what = `task ${sandbox.task_id} was taken over${by === undefined ? '' : ` by conductor ${by}`}`
          throw new ConductorError('EXISTS', what)
        }
        const others = present.filter((other) => other !== before)
        // When it began only who began it knows.
        const created_at = before?.created_at ?? sandbox.created_at
        return [...others, { ...before, ...sandbox, created_at }].sort((a, b) => startOf(b) - startOf(a))
      },
      signal,
    )
    return written?.count === 1 ? written.etag : undefined
  }

  /**
   * Decides under which key the death certificate of this spawn's worker goes, for all who are about to write one: the first
   * that asks has its way. Resolves `undefined` when its end is written down already. In a store without conditional writes two
   * that ask at the same moment may both have theirs.
   */
  async reserveCertificate(
    { task_id: taskId, spawn_id: spawnId }: SpawnName,
    key: string,
    { signal }: CallOptions = {},
  ): Promise<string | undefined> {
    let reserved: string | undefined
    await this.#change(
      taskId,
      (present, isThere) => {
        const own = present.find(({ spawn_id }) => spawn_id === spawnId)
        // What nobody could write down the beginning of only the conductor that saw it go speaks of.
        reserved = own?.certificate_key ?? (isThere && present.length === 0 ? undefined : key)
        if (own === undefined || own.certificate_key !== undefined) return undefined
        return present.map((other) => (other === own ? { ...own, certificate_key: key } : other))
      },
      signal,
    )
    return reserved
  }

  /** Tasks whose intent is not closed: a request for every thousand tasks that there are. */
  async *listOpen({ signal }: CallOptions = {}): AsyncGenerator<string, void, undefined> {
    const prefix = this.#key('').slice(0, -SUFFIX.length)
    const doing = `list s3://${this.#at.bucket}/${prefix}`
    for await (const page of listPages(this.#at, { Prefix: prefix }, doing, signal)) {
      for (const { Key = '', Size } of page.Contents ?? []) {
        const taskId = Key.slice(prefix.length, -SUFFIX.length)
        if (Size !== 0 && Key.endsWith(SUFFIX) && taskIdProblem(taskId) === undefined) yield taskId
      }
    }
  }

  /** Forgets a task that is gone, unless its worker was started at or after this moment. */
  async prune(
    taskId: string,
    { startedBefore, signal }: CallOptions & { readonly startedBefore: Date },
  ): Promise<void> {
    const present = await this.read(taskId, { signal })
    if (present === undefined) return
    const { intent, etag } = present
    if (intent !== undefined && Date.parse(intent.created_at) >= startedBefore.getTime()) return
    try {
      await deleteS3Document(this.#at, this.#key(taskId), etag, signal)
    } catch (error) {
      // Its worker is being started at this moment.
      if (!isConductorError(error) || error.code !== 'EXISTS') throw error
    }
  }

  /** `change` gets the sandboxes of the task's intent, and whether there is one, as often as another comes in between. */
  async #change(
    taskId: string,
    change: (present: readonly SandboxIntent[], isThere: boolean) => readonly SandboxIntent[] | undefined,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly etag: string | undefined; readonly count: number } | undefined> {
    const conflicts = new Conflicts(`the intent of ${taskId}`)
    for (;;) {
      const present = await this.read(taskId, { signal })
      const next = change(sandboxesOf(present?.intent), present !== undefined)
      if (next === undefined) return undefined
      try {
        const expected = present === undefined ? null : present.etag
        const value = intentOf(next)
        const etag = await writeS3Document(this.#at, this.#key(taskId), value, { expected, signal })
        return { etag, count: next.length }
      } catch (error) {
        conflicts.note(error, present?.etag)
      }
    }
  }

  #key(taskId: string): string {
    return s3IntentKey(this.#at.prefix, taskId)
  }
}

/** The sandboxes of which an intent tells, the latest first. */
export function sandboxesOf(intent: Intent | undefined): readonly SandboxIntent[] {
  if (intent === undefined) return []
  const { earlier = [], ...latest } = intent
  return [latest, ...earlier]
}

/** An intent that tells of these sandboxes, the latest first. */
export function intentOf(sandboxes: readonly [SandboxIntent, ...SandboxIntent[]]): Intent
export function intentOf(sandboxes: readonly SandboxIntent[]): Intent | undefined
export function intentOf([latest, ...others]: readonly SandboxIntent[]): Intent | undefined {
  const earlier = others.slice(0, MAX_EARLIER)
  return latest === undefined || earlier.length === 0 ? latest : { ...latest, earlier }
}

function startOf({ created_at }: SandboxIntent): number {
  return Date.parse(created_at)
}
