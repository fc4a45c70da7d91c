import { DeleteObjectCommand } from '@aws-sdk/client-s3'
import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import type { Intent } from '../../protocol/intent.js'
import { taskIdProblem } from '../../protocol/key.js'
import { parseIntent } from '../../protocol/parse.js'
import { s3IntentKey } from '../../protocol/s3-layout.js'
import { listPages } from './list-pages.js'
import { mapS3Error } from './map-s3-error.js'
import { type ExpectedEtag, readS3Document, writeS3Document } from './s3-documents.js'
import type { S3Location } from './s3-location.js'

const MAX_INTENT_BYTES = 64 * 1024
const SUFFIX = '.json'
/** Each is somebody else's progress; beyond this the store's tags cannot be what it compares. */
const MAX_CONFLICTS = 20

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

  /** Empties an intent of this spawn, unless somebody else has written another since. A known tag saves reading it. */
  async close(
    { task_id: taskId, spawn_id: spawnId }: Pick<Intent, 'task_id' | 'spawn_id'>,
    { etag, signal }: CallOptions & { readonly etag?: string | undefined } = {},
  ): Promise<void> {
    let expected = etag
    for (let conflicts = 0; ; conflicts++) {
      if (expected === undefined) {
        const present = await this.read(taskId, { signal })
        if (present?.intent?.spawn_id !== spawnId) return
        expected = present.etag
      }
      try {
        await writeS3Document(this.#at, this.#key(taskId), undefined, { expected, signal })
        return
      } catch (error) {
        // Changed since: by whoever is about to certify the same death, or because it is another's by now.
        assertMayRepeat(error, taskId, conflicts)
        expected = undefined
      }
    }
  }

  /**
   * Decides under which key the death certificate of this spawn's worker goes, for all who are about to write one: the first
   * that asks has its way. Resolves `undefined` when its end is written down already. In a store without conditional writes two
   * that ask at the same moment may both have theirs.
   */
  async reserveCertificate(
    { task_id: taskId, spawn_id: spawnId }: Pick<Intent, 'task_id' | 'spawn_id'>,
    key: string,
    { signal }: CallOptions = {},
  ): Promise<string | undefined> {
    for (let conflicts = 0; ; conflicts++) {
      const present = await this.read(taskId, { signal })
      if (present === undefined) return key
      const { intent, etag } = present
      if (intent === undefined) return undefined
      // Of an earlier sandbox only the conductor that saw it go still speaks.
      if (intent.spawn_id !== spawnId) return key
      if (intent.certificate_key !== undefined) return intent.certificate_key
      try {
        await this.write({ ...intent, certificate_key: key }, etag, { signal })
        return key
      } catch (error) {
        assertMayRepeat(error, taskId, conflicts)
      }
    }
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
    const { intent } = present
    if (intent !== undefined && Date.parse(intent.created_at) >= startedBefore.getTime()) return
    try {
      const command = new DeleteObjectCommand({ Bucket: this.#at.bucket, Key: this.#key(taskId) })
      await this.#at.client.send(command, signal === undefined ? {} : { abortSignal: signal })
    } catch (error) {
      throw mapS3Error(error, `delete s3://${this.#at.bucket}/${this.#key(taskId)}`, signal)
    }
  }

  #key(taskId: string): string {
    return s3IntentKey(this.#at.prefix, taskId)
  }
}

/** Throws unless an intent was changed by somebody else, and not too often for that. */
function assertMayRepeat(error: unknown, taskId: string, conflicts: number): void {
  if (!isConductorError(error) || error.code !== 'EXISTS') throw error
  if (conflicts < MAX_CONFLICTS) return
  throw new ConductorError('UNAVAILABLE', `the intent of ${taskId} changes all the time`, {
    retryable: true,
    cause: error,
  })
}
