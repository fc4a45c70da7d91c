import { HeadObjectCommand } from '@aws-sdk/client-s3'
import type { CallOptions } from '../../call-options.js'
import { isConductorError } from '../../errors.js'
import type { Manifest } from '../../protocol/manifest.js'
import type { Outcome } from '../../protocol/outcome.js'
import { parseManifest } from '../../protocol/parse.js'
import { s3ManifestKey } from '../../protocol/s3-layout.js'
import type { ManifestStore, ManifestSummary, UpdateManifestOptions } from '../manifest-store.js'
import { Conflicts } from './conflicts.js'
import { s3Call } from './s3-call.js'
import { deleteS3Document, readS3Document, writeS3Document } from './s3-documents.js'
import type { S3Location } from './s3-location.js'

const MAX_MANIFEST_BYTES = 256 * 1024 * 1024

/** Manifests beside the results, under a prefix that no worker's grant reaches. */
export class S3Manifests implements ManifestStore {
  readonly name: string
  readonly #at: S3Location
  /** Tags of manifests written here, for whoever goes on with one. */
  readonly #etags = new WeakMap<Manifest, string>()

  /** The location stays the caller's to close. */
  constructor(location: S3Location) {
    this.#at = location
    this.name = `s3://${location.bucket}/${s3ManifestKey(location.prefix, '*')}`
  }

  async read(taskId: string, { signal }: CallOptions = {}): Promise<Manifest | undefined> {
    return (await this.#read(taskId, signal))?.manifest
  }

  async summarize(taskId: string, { signal }: CallOptions = {}): Promise<ManifestSummary | undefined> {
    const head = await s3Call(
      `head the manifest of ${taskId} in s3://${this.#at.bucket}`,
      (options) =>
        this.#at.client.send(
          new HeadObjectCommand({ Bucket: this.#at.bucket, Key: this.#key(taskId) }),
          options,
        ),
      signal,
    ).catch((error: unknown) => {
      if (isConductorError(error) && error.code === 'NOT_FOUND') return undefined
      throw error
    })
    if (head === undefined) return undefined
    const summary = fromMetadata(head.Metadata ?? {})
    if (summary !== undefined) return summary
    const manifest = await this.read(taskId, { signal })
    return manifest === undefined ? undefined : summaryOf(manifest)
  }

  async update(
    taskId: string,
    change: (present: Manifest | undefined) => Manifest | undefined,
    { signal, expectNone = false, present: written }: UpdateManifestOptions = {},
  ): Promise<Manifest | undefined> {
    const conflicts = new Conflicts(`the manifest of ${taskId}`)
    for (let tries = 0; ; tries++) {
      const known = tries === 0 ? this.#written(written) : undefined
      const present = known ?? (expectNone && tries === 0 ? undefined : await this.#read(taskId, signal))
      const next = change(present?.manifest)
      if (next === undefined) return present?.manifest
      const expected = present === undefined ? null : present.etag
      try {
        const metadata = toMetadata(summaryOf(next))
        const etag = await writeS3Document(this.#at, this.#key(taskId), next, { expected, metadata, signal })
        if (etag !== undefined) this.#etags.set(next, etag)
        return next
      } catch (error) {
        conflicts.note(error, present?.etag)
      }
    }
  }

  async delete(
    taskId: string,
    isMeant: (present: Manifest) => boolean,
    { signal }: CallOptions = {},
  ): Promise<boolean> {
    const conflicts = new Conflicts(`the manifest of ${taskId}`)
    for (;;) {
      const present = await this.#read(taskId, signal)
      if (present === undefined) return true
      if (!isMeant(present.manifest)) return false
      try {
        await deleteS3Document(this.#at, this.#key(taskId), present.etag, signal)
        return true
      } catch (error) {
        conflicts.note(error, present.etag)
      }
    }
  }

  #written(manifest: Manifest | undefined): { manifest: Manifest; etag: string } | undefined {
    const etag = manifest === undefined ? undefined : this.#etags.get(manifest)
    return manifest === undefined || etag === undefined ? undefined : { manifest, etag }
  }

  async #read(
    taskId: string,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly manifest: Manifest; readonly etag: string | undefined } | undefined> {
    const there = await readS3Document(this.#at, this.#key(taskId), MAX_MANIFEST_BYTES, signal)
    return there === undefined ? undefined : { manifest: parseManifest(taskId, there.text), etag: there.etag }
  }

  #key(taskId: string): string {
    return s3ManifestKey(this.#at.prefix, taskId)
  }
}

function summaryOf({ outcome, complete, sealed_at, results }: Manifest): ManifestSummary {
  return {
    outcome,
    complete,
    sealedAt: new Date(sealed_at),
    resultCount: results.length,
    sizeBytes: results.reduce((sum, { size }) => sum + size, 0),
  }
}

/** The summary as the object's user metadata, so that it costs a HEAD and not the manifest, which may have megabytes. */
function toMetadata(summary: ManifestSummary): Record<string, string> {
  return {
    outcome: summary.outcome,
    complete: String(summary.complete),
    'sealed-at': summary.sealedAt.toISOString(),
    'result-count': String(summary.resultCount),
    'size-bytes': String(summary.sizeBytes),
  }
}

const outcomes: ReadonlySet<string> = new Set([
  'succeeded',
  'failed',
  'killed',
  'timed_out',
  'lost',
  'idle',
] satisfies Outcome[])

function fromMetadata(metadata: Readonly<Record<string, string>>): ManifestSummary | undefined {
  const { outcome = '', complete } = metadata
  const sealedAt = new Date(metadata['sealed-at'] ?? Number.NaN)
  const resultCount = Number(metadata['result-count'])
  const sizeBytes = Number(metadata['size-bytes'])
  const whole =
    outcomes.has(outcome) &&
    !Number.isNaN(sealedAt.getTime()) &&
    Number.isSafeInteger(resultCount) &&
    Number.isSafeInteger(sizeBytes)
  if (!whole) return undefined
  return { outcome: outcome as Outcome, complete: complete === 'true', sealedAt, resultCount, sizeBytes }
}
