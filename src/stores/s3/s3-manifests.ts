import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import type { Manifest } from '../../protocol/manifest.js'
import { parseManifest } from '../../protocol/parse.js'
import { s3ManifestKey } from '../../protocol/s3-layout.js'
import type { ManifestStore, UpdateManifestOptions } from '../manifest-store.js'
import { readS3Document, writeS3Document } from './s3-documents.js'
import type { S3Location } from './s3-location.js'

const MAX_MANIFEST_BYTES = 256 * 1024 * 1024
/** Writers that come in between before an update gives up; each of them got its own update through. */
const MAX_CONFLICTS = 20

/** Manifests beside the results, under a prefix that no worker's grant reaches. */
export class S3Manifests implements ManifestStore {
  readonly #at: S3Location

  /** The location stays the caller's to close. */
  constructor(location: S3Location) {
    this.#at = location
  }

  async read(taskId: string, { signal }: CallOptions = {}): Promise<Manifest | undefined> {
    return (await this.#read(taskId, signal))?.manifest
  }

  async update(
    taskId: string,
    change: (present: Manifest | undefined) => Manifest | undefined,
    { signal, expectNone = false }: UpdateManifestOptions = {},
  ): Promise<Manifest | undefined> {
    for (let conflicts = 0; ; conflicts++) {
      const present = expectNone && conflicts === 0 ? undefined : await this.#read(taskId, signal)
      const next = change(present?.manifest)
      if (next === undefined) return present?.manifest
      const expected = present === undefined ? null : present.etag
      try {
        await writeS3Document(this.#at, s3ManifestKey(this.#at.prefix, taskId), next, expected, signal)
        return next
      } catch (error) {
        if (!isConductorError(error) || error.code !== 'EXISTS') throw error
        if (conflicts < MAX_CONFLICTS) continue
        throw new ConductorError('UNAVAILABLE', `the manifest of ${taskId} changes all the time`, {
          retryable: true,
          cause: error,
        })
      }
    }
  }

  async #read(
    taskId: string,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly manifest: Manifest; readonly etag: string | undefined } | undefined> {
    const key = s3ManifestKey(this.#at.prefix, taskId)
    const there = await readS3Document(this.#at, key, MAX_MANIFEST_BYTES, signal)
    return there === undefined ? undefined : { manifest: parseManifest(taskId, there.text), etag: there.etag }
  }
}
