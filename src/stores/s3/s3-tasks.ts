import type { ListObjectsV2CommandOutput } from '@aws-sdk/client-s3'
import type { CallOptions } from '../../call-options.js'
import { assertTaskId, parseKey, RECORD_SUFFIX, taskIdProblem } from '../../protocol/key.js'
import { s3ManifestKey, s3TaskPrefix } from '../../protocol/s3-layout.js'
import type {
  ClearedObject,
  ClearOptions,
  ListTasksOptions,
  TaskEntry,
  TaskIndex,
  TaskUsage,
} from '../task-index.js'
import { deleteS3Objects } from './delete-objects.js'
import { listPages, type WantedKeys } from './list-pages.js'
import type { S3Location } from './s3-location.js'

const MANIFEST_SUFFIX = '.json'

/** The tasks that a bucket knows: those with a manifest, and those with a prefix of their own. A request for every thousand of each. */
export class S3Tasks implements TaskIndex {
  readonly tier = 's3'
  readonly name: string
  readonly #at: S3Location

  /** The location stays the caller's to close. */
  constructor(location: S3Location) {
    this.#at = location
    this.name = `s3://${location.bucket}${location.prefix === '' ? '' : `/${location.prefix}`}`
  }

  async *listTasks({ signal, startsWith = '' }: ListTasksOptions = {}): AsyncGenerator<TaskEntry> {
    const manifests = s3ManifestKey(this.#at.prefix, '').slice(0, -MANIFEST_SUFFIX.length)
    for await (const page of this.#pages({ Prefix: `${manifests}${startsWith}` }, signal)) {
      for (const { Key = '', LastModified } of page.Contents ?? []) {
        const taskId = Key.slice(manifests.length, -MANIFEST_SUFFIX.length)
        if (!Key.endsWith(MANIFEST_SUFFIX) || taskIdProblem(taskId) !== undefined) continue
        yield { taskId, sealed: true, updatedAt: LastModified ?? new Date(0) }
      }
    }
    const results = this.#at.prefix === '' ? '' : `${this.#at.prefix}/`
    const grouped = { Prefix: `${results}${startsWith}`, Delimiter: '/' }
    for await (const page of this.#pages(grouped, signal)) {
      for (const { Prefix = '' } of page.CommonPrefixes ?? []) {
        const taskId = Prefix.slice(results.length, -1)
        if (taskIdProblem(taskId) !== undefined) continue
        yield { taskId, sealed: false, updatedAt: undefined }
      }
    }
  }

  async measure(taskId: string, { signal }: CallOptions = {}): Promise<TaskUsage | undefined> {
    const Prefix = s3TaskPrefix(this.#at.prefix, taskId)
    const strip = Prefix.length - taskId.length - 1
    let usage: TaskUsage | undefined
    for await (const page of this.#pages({ Prefix }, signal)) {
      for (const { Key = '', Size = 0, LastModified = new Date(0) } of page.Contents ?? []) {
        const key = Key.slice(strip)
        if (key.endsWith(RECORD_SUFFIX) || parseKey(key)?.taskId !== taskId) continue
        usage = {
          updatedAt: usage === undefined || usage.updatedAt < LastModified ? LastModified : usage.updatedAt,
          resultCount: (usage?.resultCount ?? 0) + 1,
          sizeBytes: (usage?.sizeBytes ?? 0) + Size,
        }
      }
    }
    return usage
  }

  async *clear(taskId: string, { storedBefore, signal }: ClearOptions): AsyncGenerator<ClearedObject> {
    assertTaskId(taskId)
    const Prefix = s3TaskPrefix(this.#at.prefix, taskId)
    const strip = Prefix.length - taskId.length - 1
    for await (const page of this.#pages({ Prefix }, signal)) {
      const old = (page.Contents ?? []).filter(
        ({ Key, LastModified }) =>
          Key !== undefined && LastModified !== undefined && LastModified < storedBefore,
      )
      if (old.length === 0) continue
      const keys = old.map(({ Key = '' }) => Key)
      const doing = `delete from ${this.name}`
      const failed = await deleteS3Objects(this.#at, keys, { doing, concurrency: 16, signal })
      for (const { Key = '', Size = 0 } of old) {
        if (failed.has(Key)) continue
        const key = Key.slice(strip)
        const isResult = !key.endsWith(RECORD_SUFFIX) && parseKey(key) !== undefined
        yield { key: isResult ? key : undefined, size: Size }
      }
      for (const error of failed.values()) throw error
    }
  }

  #pages(
    wanted: WantedKeys,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<ListObjectsV2CommandOutput, void, undefined> {
    return listPages(this.#at, wanted, `list s3://${this.#at.bucket}/${wanted.Prefix}`, signal)
  }
}
