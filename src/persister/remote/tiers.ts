import type { Grant } from '../../protocol/grant.js'
import type { RemoteTier } from '../../protocol/record.js'
import type { Settings } from '../settings.js'
import { loadGrant } from './grant-file.js'
import { noCredentials } from './no-credentials.js'
import type { RemoteStore } from './remote-store.js'

/** Finds the stores that the environment and the grant of a task allow; each is made once. */
export class Tiers {
  readonly #settings: Settings
  readonly #taskId: string
  #grant: Grant | undefined
  #grantRead = false
  readonly #stores = new Map<RemoteTier, Promise<RemoteStore | undefined>>()

  constructor(settings: Settings, taskId: string) {
    this.#settings = settings
    this.#taskId = taskId
  }

  /** A tier's store, or `undefined` when it is not configured; rejects when it is, but not so that it could work. */
  async find(tier: RemoteTier): Promise<RemoteStore | undefined> {
    let store = this.#stores.get(tier)
    if (store === undefined) {
      store = tier === 's3' ? this.#makeS3() : this.#makeHttp()
      this.#stores.set(tier, store)
    }
    return await store
  }

  /** Reads the grant again; true when it changed, and the stores with it. */
  refresh(): boolean {
    const before = this.#grant
    const after = this.#load()
    if (after === undefined || JSON.stringify(before) === JSON.stringify(after)) return false
    this.#grant = after
    this.#stores.clear()
    return true
  }

  #load(): Grant | undefined {
    return loadGrant(this.#settings.env, this.#taskId, this.#settings.warn)
  }

  #readGrant(): Grant | undefined {
    if (!this.#grantRead) this.#grant = this.#load()
    this.#grantRead = true
    return this.#grant
  }

  async #makeS3(): Promise<RemoteStore | undefined> {
    const { env, limits } = this.#settings
    if (env.s3?.credentials !== undefined) {
      const [{ S3Client }, { S3Store }] = await Promise.all([
        import('./s3-client.js'),
        import('./s3-store.js'),
      ])
      const { bucket, region, endpoint, credentials, prefix } = env.s3
      return new S3Store(new S3Client({ bucket, region, endpoint }, credentials, limits), prefix, limits)
    }
    const grant = this.#readGrant()
    if (grant?.s3 === undefined) {
      if (env.s3 === undefined) return undefined
      throw noCredentials(env.s3.bucket)
    }
    const { grantedS3 } = await import('./granted-s3.js')
    return await grantedS3(grant, grant.s3, this.#settings, this.#taskId)
  }

  async #makeHttp(): Promise<RemoteStore | undefined> {
    const { env, limits } = this.#settings
    const endpoint = env.http === undefined ? this.#readGrant()?.http : { ...env.http, token: env.http.token }
    if (endpoint === undefined) return undefined
    const { HttpStore } = await import('./http-store.js')
    return new HttpStore(
      { endpoint: endpoint.endpoint, token: endpoint.token, granted: env.http === undefined },
      limits,
    )
  }
}
