import { createHash } from 'node:crypto'
import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import { DEATH_CERTIFICATE_NAME, type DeathCertificate } from '../../protocol/death-certificate.js'
import { parsePublicKey } from '../../protocol/encryption/public-key.js'
import { contextOf } from '../../protocol/encryption/sealed-format.js'
import { formatSealedType } from '../../protocol/encryption/sealed-type.js'
import { Sealer } from '../../protocol/encryption/sealer.js'
import { formatKey, formatTimestamp, nextTimestamp, splitKey } from '../../protocol/key.js'
import type { ResultRecord } from '../../protocol/record.js'
import type { TaskPlaces } from '../places.js'
import { type Cargo, type CarryStore, carryOnce } from './carry.js'
import type { Delivery } from './deliver.js'

/** How far its key moves on from results of the task's own before none counts as free. */
const MAX_KEY_MOVES = 100

/**
 * Stores a certificate as a result of its task, in the first tier that takes it. Where several conductors certify one death, all
 * get the first one's. Undefined where no tier takes it, or that death was written down before.
 *
 * @param spawnId of the sandbox whose worker died
 */
export async function storeCertificate(
  certificate: DeathCertificate,
  spawnId: string,
  { s3, http, encryption, intents }: Pick<TaskPlaces, 's3' | 'http' | 'encryption' | 'intents'>,
  options: CallOptions = {},
): Promise<Delivery | undefined> {
  // It quotes what the command printed, which is no less worth hiding than what it stored.
  const { bytes, contentType } = seal(
    Buffer.from(`${JSON.stringify(certificate, null, 2)}\n`),
    certificate.task_id,
    encryption?.publicKey,
  )
  const { task_id: taskId, cause } = certificate
  const at = new Date(certificate.at)
  const key = await reserveKey(
    formatKey({ taskId, timestamp: formatTimestamp(at), name: DEATH_CERTIFICATE_NAME }),
  )
  if (key === undefined) return undefined
  const record: ResultRecord = {
    v: 1,
    task_id: taskId,
    timestamp: splitKey(key).timestamp,
    name: DEATH_CERTIFICATE_NAME,
    key,
    size: bytes.length,
    sha256: createHash('sha256').update(bytes).digest('hex'),
    content_type: contentType,
    metadata: { cause, spawn_id: spawnId },
    created_at: certificate.at,
    archive: null,
    stored: [],
    errors: {},
  }
  const cargo = { open: async () => new Blob([bytes]).stream(), from: 'the conductor' }
  for (const store of [s3, http]) {
    if (store === undefined) continue
    try {
      const kept = await putOnce(store, record, cargo, options)
      return { record: kept, tiers: [store.tier], verified: store.tier === 's3', undelivered: undefined }
    } catch (error) {
      // The receipt and the manifest tell the cause as well; a worker's end does not wait for its certificate.
      if (!isConductorError(error)) throw error
    }
  }
  return undefined

  async function reserveKey(wanted: string): Promise<string | undefined> {
    try {
      const spawn = { task_id: taskId, spawn_id: spawnId }
      return intents === undefined ? wanted : await intents.reserveCertificate(spawn, wanted, options)
    } catch (error) {
      if (!isConductorError(error)) throw error
      return wanted
    }
  }
}

/** Puts it there unless another of the same death is there already, which is then the one that counts. */
async function putOnce(
  store: CarryStore,
  record: ResultRecord,
  cargo: Cargo,
  options: CallOptions,
): Promise<ResultRecord> {
  let moved = record
  for (let moves = 0; moves < MAX_KEY_MOVES; moves++) {
    try {
      return await carryOnce(store, moved, cargo, options)
    } catch (error) {
      if (!isConductorError(error) || error.code !== 'EXISTS') throw error
      const there = await store.describe(moved.key, options)
      if (there?.sha256 !== undefined && there.metadata.spawn_id === record.metadata.spawn_id) {
        const { size, sha256, contentType, metadata, createdAt } = there
        const stored = [
          { tier: store.tier, location: `${store.name}/${moved.key}`, at: new Date().toISOString() },
        ]
        const theirs = { size, sha256, content_type: contentType, metadata }
        return { ...moved, ...theirs, created_at: createdAt.toISOString(), stored }
      }
      const timestamp = nextTimestamp(moved.timestamp)
      const { task_id: taskId, name } = moved
      moved = { ...moved, timestamp, key: formatKey({ taskId, timestamp, name }) }
    }
  }
  throw new ConductorError('EXISTS', `no free key for ${record.key} within ${MAX_KEY_MOVES} seconds`)
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
