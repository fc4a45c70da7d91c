import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { ConductorError } from '../errors.js'
import { isSealedType } from '../protocol/encryption/sealed-type.js'
import { assertKey } from '../protocol/key.js'
import { spoolFileName } from '../protocol/spool-layout.js'
import type { Copy } from './copy.js'
import { mapFsError } from './fs-error.js'
import type { Settings } from './settings.js'
import { bodyPath, readResult } from './spool/record-file.js'
import { CHUNK_BYTES } from './spool/stage.js'

async function localCopy(settings: Settings, key: string): Promise<Copy | undefined> {
  const { taskId, timestamp, name } = assertKey(key)
  const record = readResult(settings.localDir, taskId, spoolFileName(timestamp, name))
  if (record === undefined || record.key !== key) return undefined
  return {
    where: 'local',
    near: true,
    sha256: record.sha256,
    contentType: record.content_type,
    read: (sink) =>
      pipeline(createReadStream(bodyPath(settings.localDir, record), { highWaterMark: CHUNK_BYTES }), sink),
  }
}

/** The places that may have a result, nearest first; each is asked only when the one before has nothing. */
async function* copies(settings: Settings, key: string): AsyncGenerator<Copy> {
  try {
    const local = await localCopy(settings, key)
    if (local !== undefined) yield local
  } catch (error) {
    settings.warn(mapFsError(error, `cannot read ${key} from ${settings.localDir}`).message)
  }
  const { remoteCopies } = await import('./remote/remote-copies.js')
  yield* remoteCopies(settings, key)
}

/** Reads a copy to its end; rejects with `INTEGRITY` when its bytes are not those of its digest. */
async function readChecked(copy: Copy, key: string, take: (chunk: Buffer) => Promise<void>): Promise<void> {
  const hash = createHash('sha256')
  const sink = new Writable({
    highWaterMark: CHUNK_BYTES,
    write: (chunk: Buffer, _encoding, done) => {
      hash.update(chunk)
      take(chunk).then(() => done(), done)
    },
  })
  await copy.read(sink)
  if (copy.sha256 !== undefined && hash.digest('hex') !== copy.sha256) {
    throw new ConductorError(
      'INTEGRITY',
      `${key} from ${copy.where}: its bytes are not those that were stored`,
    )
  }
}

/** Takes a result's bytes. */
export interface Receiver {
  /** Forgets what was taken, because another place is tried; absent when it cannot. */
  readonly restart?: () => Promise<void>
  take(chunk: Buffer): Promise<void>
}

/**
 * Reads a result into a receiver, from the spool or else from where it was delivered, and checks its digest. Rejects with
 * `NOT_FOUND` when no place has it, with `INTEGRITY` when none has its bytes, and with `DECRYPTION_KEY_MISSING` for an encrypted one.
 */
export async function retrieve(settings: Settings, key: string, receiver: Receiver): Promise<void> {
  assertKey(key)
  let failure: ConductorError | undefined
  for await (const copy of copies(settings, key)) {
    if (isSealedType(copy.contentType)) {
      const line = `${key} is encrypted: only a conductor with the private key can read it, nobody here`
      throw new ConductorError('DECRYPTION_KEY_MISSING', line)
    }
    let takenBytes = 0
    try {
      if (receiver.restart === undefined && copy.near) await readChecked(copy, key, async () => {})
      await receiver.restart?.()
      await readChecked(copy, key, async (chunk) => {
        takenBytes += chunk.length
        await receiver.take(chunk)
      })
      return
    } catch (error) {
      failure = mapFsError(error, `cannot read ${key} from ${copy.where}`)
      if (takenBytes > 0 && receiver.restart === undefined) throw failure
      settings.warn(failure.message)
    }
  }
  throw failure ?? new ConductorError('NOT_FOUND', `no result has the key ${key}`)
}
