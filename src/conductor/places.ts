import { Decryptor } from '../encryption/decryptor.js'
import { mintToken } from '../endpoint/token.js'
import { E2bVolumeFiles } from '../sandbox/e2b-volume.js'
import { HttpStore, type HttpStoreOptions } from '../stores/http/http-store.js'
import type { ManifestStore } from '../stores/manifest-store.js'
import type { ResultStore } from '../stores/result-store.js'
import { S3Intents } from '../stores/s3/s3-intents.js'
import type { S3Location } from '../stores/s3/s3-location.js'
import { S3Manifests } from '../stores/s3/s3-manifests.js'
import { S3Store } from '../stores/s3/s3-store.js'
import { SpoolStore } from '../stores/spool-store.js'
import type { ResolvedEncryption } from './encryption-options.js'
import type { HttpOptions, ResolvedOptions } from './options.js'

const READ_TOKEN_MS = 600_000

/** Where one task's results lie beyond its sandbox. */
export interface TaskPlaces {
  readonly localDir: string
  /** The preferred one first. */
  readonly stores: readonly ResultStore[]
  readonly s3: S3Store | undefined
  readonly http: HttpStore | undefined
  readonly manifests: ManifestStore | undefined
  /** Reads what lies there encrypted; undefined where nothing is said about encryption. */
  readonly encryption: ResolvedEncryption | undefined
  readonly intents: S3Intents | undefined
  /** Name of the volume that is the task's spool, if one is. */
  readonly volume: string | undefined
}

/** The places that the conductor's settings give a task. */
export function placesOf(
  task: {
    readonly taskId: string
    /** May hold `{taskId}`. */
    readonly volume: string | undefined
    /** @default the conductor's */
    readonly localDir?: string | undefined
    /** Of a sandbox that has one: whoever ends it encrypts for it, also without a key of their own. */
    readonly encryptionKey?: string | undefined
  },
  options: ResolvedOptions,
  s3: S3Location | undefined,
): TaskPlaces {
  const store = s3 === undefined ? undefined : new S3Store(s3)
  const volume = task.volume?.replaceAll('{taskId}', task.taskId)
  const http = options.http === undefined ? undefined : new HttpStore(httpAccess(options.http))
  const stores: ResultStore[] = [store, http].filter((place) => place !== undefined)
  if (volume !== undefined) {
    stores.push(volumeStore(volume, options))
  }
  return {
    localDir: task.localDir ?? options.localDir,
    stores,
    s3: store,
    http,
    manifests: s3 === undefined ? undefined : new S3Manifests(s3),
    encryption: encryptionOf(options.encryption, task.encryptionKey),
    intents: s3 === undefined ? undefined : new S3Intents(s3),
    volume,
  }
}

/** A volume that is, or was, the spool of workers. */
export function volumeStore(volume: string, { e2b }: Pick<ResolvedOptions, 'e2b'>): ResultStore {
  return new SpoolStore(`volume ${volume}`, 'volume', new E2bVolumeFiles(volume, e2b))
}

function encryptionOf(
  own: ResolvedEncryption | undefined,
  publicKey: string | undefined,
): ResolvedEncryption | undefined {
  if (publicKey === undefined || own?.publicKey !== undefined) return own
  return { publicKey, decryptor: own?.decryptor ?? new Decryptor([]) }
}

/** How the conductor itself reads: with the fixed token, or with one for each task that outlives the call by little. */
export function httpAccess({ endpoint, token, tokenSecret }: HttpOptions): HttpStoreOptions {
  if (tokenSecret === undefined) return { endpoint, token }
  return {
    endpoint,
    token: (taskId, use) =>
      mintToken({
        secret: tokenSecret,
        taskId,
        scope: [use],
        expiresAt: new Date(Date.now() + READ_TOKEN_MS),
      }),
  }
}
