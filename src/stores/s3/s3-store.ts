import type { Readable } from 'node:stream'
import { HeadObjectCommand, type HeadObjectCommandOutput, PutObjectCommand } from '@aws-sdk/client-s3'
import pLimit from 'p-limit'
import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import { assertKey, assertTaskId, compareKeys, parseKey, RECORD_SUFFIX } from '../../protocol/key.js'
import { parseRecord } from '../../protocol/parse.js'
import type { ResultRecord } from '../../protocol/record.js'
import { s3ObjectKey, s3SidecarKey, s3TaskPrefix, toS3Metadata } from '../../protocol/s3-layout.js'
import { toWebStream } from '../../streams/web-stream.js'
import type {
  DeletedKey,
  DeleteOptions,
  DescribedBody,
  ListOptions,
  OpenOptions,
  ResultDescription,
  ResultStore,
  StoredEntry,
  UrlOptions,
} from '../result-store.js'
import { deleteS3Objects } from './delete-objects.js'
import { deleteS3Results } from './delete-results.js'
import { listPages } from './list-pages.js'
import { mapS3Error } from './map-s3-error.js'
import { encryptionProblem } from './object-encryption.js'
import { describeHead, metadataOf, type ObjectHead } from './object-head.js'
import { objectInput } from './object-options.js'
import { presignDownload } from './presign-download.js'
import { ObjectReader } from './read-object.js'
import { s3Call } from './s3-call.js'
import type { S3Location } from './s3-location.js'
import { putSidecar, readSidecar } from './sidecars.js'

const CONCURRENT_HEADS = 16

/** Results in an S3 bucket, one object each, laid out so that `aws s3 ls` and `aws s3 cp` work on them. */
export class S3Store implements ResultStore {
  readonly tier = 's3'
  readonly name: string
  readonly #at: S3Location
  readonly #reader: ObjectReader

  /** The location stays the caller's to close. */
  constructor(location: S3Location) {
    this.#at = location
    this.#reader = new ObjectReader(location)
    this.name = `s3://${location.bucket}${location.prefix === '' ? '' : `/${location.prefix}`}`
  }

  async *list(
    taskId: string,
    { signal, startAfter }: ListOptions = {},
  ): AsyncGenerator<StoredEntry, void, undefined> {
    assertTaskId(taskId)
    const Prefix = s3TaskPrefix(this.#at.prefix, taskId)
    const strip = Prefix.length - taskId.length - 1
    const StartAfter = startAfter === undefined ? undefined : `${Prefix.slice(0, strip)}${startAfter}`
    const doing = `list ${this.name}/${taskId}/`
    let last = ''
    for await (const page of listPages(this.#at, { Prefix, StartAfter }, doing, signal)) {
      for (const object of page.Contents ?? []) {
        const key = (object.Key ?? '').slice(strip)
        if (key.endsWith(RECORD_SUFFIX) || parseKey(key)?.taskId !== taskId) continue
        // Merging relies on the order; a server that breaks it must not make results disappear or repeat.
        if (compareKeys(last, key) >= 0) {
          throw new ConductorError('PROTOCOL', `${doing} is not in key order`)
        }
        last = key
        yield { key, size: object.Size ?? 0 }
      }
    }
  }

  async describe(key: string, { signal }: CallOptions = {}): Promise<ResultDescription | undefined> {
    const Key = this.#objectKey(key)
    const head = await this.#head(key, signal)
    if (head === undefined) return undefined
    const notEncrypted = encryptionProblem(this.#at.objects ?? {}, head)
    const fromHead = { ...describeHead(key, head), notEncrypted }
    if (metadataOf(head) !== undefined || fromHead.problem !== undefined) return fromHead
    try {
      const sidecar = await readSidecar(this.#at, Key, signal)
      if (sidecar === undefined) return { ...fromHead, problem: 'the object carries no metadata' }
      const record = parseRecord(sidecar)
      if (record.key !== key) throw new ConductorError('PROTOCOL', `record names ${record.key}`)
      return { ...fromHead, metadata: record.metadata }
    } catch (error) {
      // Whoever wrote it has written nonsense, or far too much; a store that cannot answer is another matter.
      if (!isConductorError(error) || !['PROTOCOL', 'TOO_LARGE'].includes(error.code)) throw error
      return { ...fromHead, problem: error.message }
    }
  }

  async open(key: string, { signal, offset = 0 }: OpenOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return (await this.#get(key, offset, signal)).body
  }

  async openDescribed(key: string, { signal }: CallOptions = {}): Promise<DescribedBody> {
    const { body, head } = await this.#get(key, 0, signal)
    return { body, about: describeHead(key, head) }
  }

  async delete(key: string, { signal, listed = false }: DeleteOptions = {}): Promise<boolean> {
    const Key = this.#objectKey(key)
    // S3 does not say whether there was anything: https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
    const was = listed || (await this.#head(key, signal)) !== undefined
    // The object first, since a sidecar without one is passed over; the sidecar also when an earlier call got no further than that.
    const doing = `delete ${this.name}/${key}`
    const failed = await deleteS3Objects(this.#at, [Key, s3SidecarKey(Key)], { doing, signal })
    for (const error of failed.values()) throw error
    return was
  }

  async deleteMany(
    wanted: readonly DeletedKey[],
    { signal }: CallOptions = {},
  ): Promise<ReadonlyMap<string, boolean | ConductorError>> {
    for (const { key } of wanted) assertKey(key)
    const limit = pLimit(CONCURRENT_HEADS)
    const outcomes = new Map<string, boolean | ConductorError>(wanted.map(({ key }) => [key, true]))
    const ask = async (key: string): Promise<void> => {
      try {
        if ((await this.#head(key, signal)) === undefined) outcomes.set(key, false)
      } catch (error) {
        if (!isConductorError(error)) throw error
        outcomes.set(key, error)
      }
    }
    // As in deleting one: of those that no listing has shown, S3 would not say whether they were there.
    const unlisted = wanted.filter(({ listed }) => listed !== true)
    const asked = await Promise.allSettled(unlisted.map(({ key }) => limit(() => ask(key))))
    for (const end of asked) if (end.status === 'rejected') throw end.reason
    const keys = wanted.flatMap(({ key }) => (isConductorError(outcomes.get(key)) ? [] : [key]))
    const failed = await deleteS3Results(this.#at, keys, `delete from ${this.name}`, signal)
    for (const [key, error] of failed) outcomes.set(key, error)
    return outcomes
  }

  async url(key: string, options: UrlOptions = {}): Promise<string> {
    return presignDownload(this.#at, this.#objectKey(key), options)
  }

  /**
   * Stores a result that the conductor carries itself. Refuses to overwrite (`EXISTS`) where the store supports `If-None-Match`;
   * the store checks the digest while it takes the body.
   */
  async put(record: ResultRecord, body: Readable, { signal }: CallOptions = {}): Promise<string> {
    const Key = this.#objectKey(record.key)
    const { values, sidecar } = toS3Metadata(record)
    const doing = `put ${this.name}/${record.key}`
    if (sidecar) await putSidecar(this.#at, record, { signal })
    await s3Call(
      doing,
      (options) =>
        this.#at.client.send(
          new PutObjectCommand({
            Bucket: this.#at.bucket,
            Key,
            Body: body,
            ContentLength: record.size,
            ContentType: record.content_type,
            ChecksumSHA256: Buffer.from(record.sha256, 'hex').toString('base64'),
            Metadata: values,
            IfNoneMatch: '*',
            ...objectInput(this.#at),
          }),
          options,
        ),
      signal,
    )
    return `s3://${this.#at.bucket}/${Key}`
  }

  async #head(key: string, signal: AbortSignal | undefined): Promise<HeadObjectCommandOutput | undefined> {
    const command = new HeadObjectCommand({ Bucket: this.#at.bucket, Key: this.#objectKey(key) })
    try {
      const doing = `head ${this.name}/${key}`
      return await s3Call(doing, (options) => this.#at.client.send(command, options), signal)
    } catch (error) {
      if (isConductorError(error) && error.code === 'NOT_FOUND') return undefined
      throw error
    }
  }

  async #get(
    key: string,
    offset: number,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly body: ReadableStream<Uint8Array>; readonly head: ObjectHead }> {
    const doing = `get ${this.name}/${key}`
    const opened = await this.#reader.open(this.#objectKey(key), { doing, offset, signal })
    const body = toWebStream(opened.body, (error) => mapS3Error(error, doing, signal))
    return { body, head: opened.head }
  }

  #objectKey(key: string): string {
    assertKey(key)
    return s3ObjectKey(this.#at.prefix, key)
  }
}
