import { PutObjectCommand } from '@aws-sdk/client-s3'
import type { CallOptions } from '../../call-options.js'
import type { Manifest } from '../../protocol/manifest.js'
import { parseManifest } from '../../protocol/parse.js'
import { s3ManifestKey } from '../../protocol/s3-layout.js'
import type { ManifestStore } from '../manifest-store.js'
import { mapS3Error } from './map-s3-error.js'
import { objectInput } from './object-options.js'
import { readS3Text } from './read-s3-text.js'
import type { S3Location } from './s3-location.js'

const MAX_MANIFEST_BYTES = 256 * 1024 * 1024

/** Manifests beside the results, under a prefix that no worker's grant reaches. */
export class S3Manifests implements ManifestStore {
  readonly #at: S3Location

  /** The location stays the caller's to close. */
  constructor(location: S3Location) {
    this.#at = location
  }

  async read(taskId: string, { signal }: CallOptions = {}): Promise<Manifest | undefined> {
    const text = await readS3Text(
      this.#at,
      s3ManifestKey(this.#at.prefix, taskId),
      MAX_MANIFEST_BYTES,
      signal,
    )
    return text === undefined ? undefined : parseManifest(taskId, text)
  }

  async write(manifest: Manifest, { signal }: CallOptions = {}): Promise<void> {
    const Key = s3ManifestKey(this.#at.prefix, manifest.task_id)
    signal?.throwIfAborted()
    try {
      await this.#at.client.send(
        new PutObjectCommand({
          Bucket: this.#at.bucket,
          Key,
          Body: `${JSON.stringify(manifest)}\n`,
          ContentType: 'application/json',
          ...objectInput(this.#at),
        }),
        signal === undefined ? {} : { abortSignal: signal },
      )
    } catch (error) {
      throw mapS3Error(error, `put s3://${this.#at.bucket}/${Key}`, signal)
    }
  }
}
