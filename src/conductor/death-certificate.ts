import { createHash } from 'node:crypto'
import type { CallOptions } from '../call-options.js'
import { isConductorError } from '../errors.js'
import { DEATH_CERTIFICATE_NAME, type DeathCertificate } from '../protocol/death-certificate.js'
import { parsePublicKey } from '../protocol/encryption/public-key.js'
import { contextOf } from '../protocol/encryption/sealed-format.js'
import { formatSealedType } from '../protocol/encryption/sealed-type.js'
import { Sealer } from '../protocol/encryption/sealer.js'
import { formatKey, formatTimestamp } from '../protocol/key.js'
import type { ResultRecord } from '../protocol/record.js'
import { carryTo } from './carry.js'
import type { Delivery } from './deliver.js'
import type { TaskPlaces } from './places.js'

/** Stores a certificate as a result of its task, in the first tier that takes it; undefined where none does. */
export async function storeCertificate(
  certificate: DeathCertificate,
  { s3, http, encryption }: Pick<TaskPlaces, 's3' | 'http' | 'encryption'>,
  options: CallOptions = {},
): Promise<Delivery | undefined> {
  // It quotes what the command printed, which is no less worth hiding than what it stored.
  const { bytes, contentType } = seal(
    Buffer.from(`${JSON.stringify(certificate, null, 2)}\n`),
    certificate.task_id,
    encryption?.publicKey,
  )
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
    content_type: contentType,
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

function seal(
  content: Buffer,
  taskId: string,
  publicKey: string | undefined,
): { readonly bytes: Buffer<ArrayBuffer>; readonly contentType: string } {
  const contentType = 'application/json'
  if (publicKey === undefined) return { bytes: Buffer.from(content), contentType }
  const key = parsePublicKey('encryption.publicKey', publicKey)
  const sealer = new Sealer(key, contextOf(taskId, DEATH_CERTIFICATE_NAME))
  const bytes = Buffer.concat([sealer.header, ...sealer.add(content), ...sealer.finish()])
  return { bytes, contentType: formatSealedType({ keyId: key.id, contentType }) }
}
