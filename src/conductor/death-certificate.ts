import { createHash } from 'node:crypto'
import type { CallOptions } from '../call-options.js'
import { isConductorError } from '../errors.js'
import { DEATH_CERTIFICATE_NAME, type DeathCertificate } from '../protocol/death-certificate.js'
import { formatKey, formatTimestamp } from '../protocol/key.js'
import type { ResultRecord } from '../protocol/record.js'
import { carryTo } from './carry.js'
import type { Delivery } from './deliver.js'
import type { TaskPlaces } from './places.js'

/** Stores a certificate as a result of its task, in the first tier that takes it; undefined where none does. */
export async function storeCertificate(
  certificate: DeathCertificate,
  { s3, http }: Pick<TaskPlaces, 's3' | 'http'>,
  options: CallOptions = {},
): Promise<Delivery | undefined> {
  const bytes = Buffer.from(`${JSON.stringify(certificate, null, 2)}\n`)
  const now = new Date()
  const timestamp = formatTimestamp(now)
  const { task_id: taskId, cause } = certificate
  const record: ResultRecord = {
    v: 1,
    task_id: taskId,
    timestamp,
    name: DEATH_CERTIFICATE_NAME,
    key: formatKey({ taskId, timestamp, name: DEATH_CERTIFICATE_NAME }),
    size: bytes.length,
    sha256: createHash('sha256').update(bytes).digest('hex'),
    content_type: 'application/json',
    metadata: { cause },
    created_at: now.toISOString(),
    archive: null,
    stored: [],
    errors: {},
  }
  const cargo = { open: async () => new Blob([bytes]).stream(), from: 'the conductor' }
  for (const store of [s3, http]) {
    if (store === undefined) continue
    try {
      const kept = await carryTo(store, record, cargo, options)
      return { record: kept, tiers: [store.tier], verified: store.tier === 's3', undelivered: undefined }
    } catch (error) {
      // The receipt and the manifest tell the cause as well; a worker's end does not wait for its certificate.
      if (!isConductorError(error)) throw error
    }
  }
  return undefined
}
