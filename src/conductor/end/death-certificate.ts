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

/** A certificate as it goes into stores. The same for each try: an earlier one may have got through unheard. */
export interface DrawnCertificate {
  readonly record: ResultRecord
  readonly bytes: Buffer<ArrayBuffer>
  /** Of the sandbox whose worker died. */
  readonly spawnId: string
}

/** Turns a certificate into a result of its task, encrypted where results are: it quotes what the command printed. */
export function drawCertificate(
  certificate: DeathCertificate,
  spawnId: string,
  { encryption }: Pick<TaskPlaces, 'encryption'>,
): DrawnCertificate {
  const { task_id: taskId, cause, at } = certificate
  const content = Buffer.from(`${JSON.stringify(certificate, null, 2)}\n`)
  const { bytes, contentType } = seal(content, taskId, encryption?.publicKey)
  const timestamp = formatTimestamp(new Date(at))
  const record: ResultRecord = {
    v: 1,
    task_id: taskId,
    timestamp,
    name: DEATH_CERTIFICATE_NAME,
    key: formatKey({ taskId, timestamp, name: DEATH_CERTIFICATE_NAME }),
    size: bytes.length,
    sha256: createHash('sha256').update(bytes).digest('hex'),
    content_type: contentType,
    metadata: { cause, spawn_id: spawnId },
    created_at: at,
    archive: null,
    stored: [],
    errors: {},
  }
  return { record, bytes, spawnId }
}

/**
 * Stores a certificate as a result of its task, in the first tier that takes it. Where several conductors certify one death, all
 * get the first one's. Undefined where no tier takes it, or that death was written down before.
 */
export async function storeCertificate(
  { record, bytes, spawnId }: DrawnCertificate,
  { s3, http, intents }: CertificatePlaces,
  options: CallOptions = {},
): Promise<Delivery | undefined> {
  const key = await reserveKey()
  if (key === undefined) return undefined
  const wanted = { ...record, key, timestamp: splitKey(key).timestamp }
  const cargo = { open: async () => new Blob([bytes]).stream(), from: 'the conductor' }
  const stores = [s3, http].filter((store) => store !== undefined)
  const kept = (await findTheirs(stores.slice(1))) ?? (await putAnywhere())
  if (kept === undefined) return undefined
  return { record: kept.record, tiers: [kept.tier], verified: kept.tier === 's3', undelivered: undefined }

  /** Another's that says something else, in a tier that is not asked first. */
  async function findTheirs(others: readonly CarryStore[]): Promise<Kept | undefined> {
    for (const store of others) {
      const there = await unlessRefused(() => asKept(store, wanted, options))
      if (there !== undefined && there.sha256 !== record.sha256) return { record: there, tier: store.tier }
    }
    return undefined
  }

  async function putAnywhere(): Promise<Kept | undefined> {
    for (const store of stores) {
      const there = await unlessRefused(() => putOnce(store, wanted, cargo, options))
      if (there !== undefined) return { record: there, tier: store.tier }
    }
    return undefined
  }

  async function reserveKey(): Promise<string | undefined> {
    try {
      const spawn = { task_id: record.task_id, spawn_id: spawnId }
      return intents === undefined ? record.key : await intents.reserveCertificate(spawn, record.key, options)
    } catch (error) {
      if (!isConductorError(error)) throw error
      return record.key
    }
  }
}

/** Where a certificate can go. */
export interface CertificatePlaces extends Pick<TaskPlaces, 'intents'> {
  readonly s3: CarryStore | undefined
  readonly http: CarryStore | undefined
}

interface Kept {
  readonly record: ResultRecord
  readonly tier: CarryStore['tier']
}

/** The receipt and the manifest tell the cause as well; a worker's end does not wait for its certificate. */
async function unlessRefused<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work()
  } catch (error) {
    if (!isConductorError(error)) throw error
    return undefined
  }
}

/** The certificate of the same death that lies under this key already, if one does. */
async function asKept(
  store: CarryStore,
  record: ResultRecord,
  options: CallOptions,
): Promise<ResultRecord | undefined> {
  const there = await store.describe(record.key, options)
  if (there?.sha256 === undefined || there.metadata.spawn_id !== record.metadata.spawn_id) return undefined
  const { size, sha256, contentType, metadata, createdAt } = there
  const stored = [{ tier: store.tier, location: `${store.name}/${record.key}`, at: new Date().toISOString() }]
  const theirs = { size, sha256, content_type: contentType, metadata }
  return { ...record, ...theirs, created_at: createdAt.toISOString(), stored }
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
      const there = await asKept(store, moved, options)
      if (there !== undefined) return there
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
