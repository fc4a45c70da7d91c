import { ConductorError } from '../../errors.js'
import type { Grant, GrantS3 } from '../../protocol/grant.js'
import type { ResultRecord } from '../../protocol/record.js'
import type { Settings } from '../settings.js'
import type { ResumeState } from '../spool/resume-file.js'
import type { Body } from '../spool/stage.js'
import type { DeliveryContext, RemoteStore } from './remote-store.js'

/** S3 by whatever means a grant gives; rejects with `UNSUPPORTED` when it gives none that is known here. */
export async function grantedS3(
  grant: Grant,
  s3: GrantS3,
  settings: Settings,
  taskId: string,
): Promise<RemoteStore> {
  const { limits, localDir } = settings
  const { policy, broker, session } = s3
  if (session !== undefined) {
    const [{ S3Client }, { S3Store }] = await Promise.all([import('./s3-client.js'), import('./s3-store.js')])
    const credentials = {
      accessKeyId: session.access_key_id,
      secretAccessKey: session.secret_access_key,
      sessionToken: session.session_token,
    }
    const { bucket, region, endpoint, prefix, headers = {} } = s3
    return new S3Store(new S3Client({ bucket, region, endpoint }, credentials, limits), prefix, limits, {
      headers,
    })
  }
  const byPolicy =
    policy === undefined
      ? undefined
      : new (await import('./s3-policy-store.js')).S3PolicyStore(grant, s3, policy, limits)
  if (broker === undefined) {
    if (byPolicy === undefined) throw new ConductorError('UNSUPPORTED', 'the grant has no upload policy')
    return byPolicy
  }
  const [{ BrokerClient }, { S3BrokerStore }] = await Promise.all([
    import('./broker-client.js'),
    import('./s3-broker-store.js'),
  ])
  const client = new BrokerClient(broker, localDir, taskId, limits)
  const byBroker = new S3BrokerStore(client, broker, s3, limits)
  if (byPolicy === undefined || policy === undefined) return byBroker
  return new BothStores(byPolicy, byBroker, policy.max_bytes)
}

/** Small results by policy, which needs nobody; those beyond it by broker. */
class BothStores implements RemoteStore {
  readonly tier = 's3'
  readonly granted = true
  readonly #byPolicy: RemoteStore
  readonly #byBroker: RemoteStore
  readonly #policyBytes: number

  constructor(byPolicy: RemoteStore, byBroker: RemoteStore, policyBytes: number) {
    this.#byPolicy = byPolicy
    this.#byBroker = byBroker
    this.#policyBytes = policyBytes
  }

  async store(record: ResultRecord, body: Body, context: DeliveryContext): Promise<string> {
    const store = body.sizeBytes <= this.#policyBytes ? this.#byPolicy : this.#byBroker
    return await store.store(record, body, context)
  }

  async abandon(resume: ResumeState): Promise<void> {
    await this.#byBroker.abandon?.(resume)
  }
}
