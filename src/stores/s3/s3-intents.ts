import type { CallOptions } from '../../call-options.js'
import type { Intent } from '../../protocol/intent.js'
import { parseIntent } from '../../protocol/parse.js'
import { s3IntentKey } from '../../protocol/s3-layout.js'
import { type ExpectedEtag, readS3Document, writeS3Document } from './s3-documents.js'
import type { S3Location } from './s3-location.js'

const MAX_INTENT_BYTES = 64 * 1024

/** An intent as it lies in the store. */
export interface StoredIntent {
  readonly intent: Intent
  readonly etag: string | undefined
}

/** Who is starting which task's worker; beside the manifests, where no worker's grant reaches. */
export class S3Intents {
  readonly #at: S3Location

  /** The location stays the caller's to close. */
  constructor(location: S3Location) {
    this.#at = location
  }

  /** Resolves `undefined` when nobody ever started the task under this name. */
  async read(taskId: string, { signal }: CallOptions = {}): Promise<StoredIntent | undefined> {
    const key = s3IntentKey(this.#at.prefix, taskId)
    const there = await readS3Document(this.#at, key, MAX_INTENT_BYTES, signal)
    return there === undefined ? undefined : { intent: parseIntent(there.text), etag: there.etag }
  }

  /** Writes it where `expected` is there, else rejects with `EXISTS`. Resolves with its tag. */
  async write(
    intent: Intent,
    expected: ExpectedEtag,
    { signal }: CallOptions = {},
  ): Promise<string | undefined> {
    return writeS3Document(this.#at, s3IntentKey(this.#at.prefix, intent.task_id), intent, {
      expected,
      signal,
    })
  }
}
