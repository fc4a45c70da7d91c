import { Volume, VolumeFileType } from 'e2b'
import pLimit from 'p-limit'
import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import { RECORD_SUFFIX } from '../protocol/key.js'
import { MAX_RECORD_BYTES, MAX_SPOOL_RECORD_BYTES } from '../protocol/parse.js'
import { SPOOL_FOLDERS } from '../protocol/spool-layout.js'
import type { OpenOptions } from '../stores/result-store.js'
import {
  beingDelivered,
  type SpoolFiles,
  type SpoolRecordFile,
  tooManyRecords,
} from '../stores/spool-store.js'
import { mapStreamErrors } from '../streams/map-stream-errors.js'
import { skipBytes } from '../streams/skip-bytes.js'
import { type E2bOptions, toConnectionOpts } from './e2b-sandboxes.js'
import { mapSandboxError } from './map-sandbox-error.js'
import { readIfThere } from './sandbox-files.js'

const CONCURRENT_READS = 16
/** Owners of markers touch them far more often than this. */
const HELD_MS = 60_000

/** A spool on an E2B volume, read through the volume API: no sandbox is needed. */
export class E2bVolumeFiles implements SpoolFiles {
  readonly #volumeName: string
  readonly #options: E2bOptions
  readonly #folder: string
  #volume: Promise<Volume> | undefined

  /** @param folder the spool's path within the volume */
  constructor(volumeName: string, options: E2bOptions, folder = '/') {
    this.#volumeName = volumeName
    this.#options = options
    this.#folder = folder.replace(/\/+$/, '')
  }

  async *readRecords(taskId: string, { signal }: CallOptions = {}): AsyncGenerator<SpoolRecordFile> {
    const volume = await this.#connect(signal)
    let entries: Awaited<ReturnType<Volume['list']>>
    try {
      entries = await volume.list(`${this.#folder}/${taskId}`, this.#call(signal))
    } catch (error) {
      const mapped = mapSandboxError(error, `list ${taskId} on volume ${this.#volumeName}`, signal)
      if (isConductorError(mapped) && mapped.code === 'NOT_FOUND') return
      throw mapped
    }
    const files = new Set(entries.filter(({ type }) => type === VolumeFileType.FILE).map(({ name }) => name))
    const records = entries.filter(
      ({ name, size }) =>
        files.has(name) &&
        files.has(name.slice(0, -RECORD_SUFFIX.length)) &&
        name.endsWith(RECORD_SUFFIX) &&
        !name.startsWith('.') &&
        size <= MAX_RECORD_BYTES,
    )
    if (records.reduce((sum, { size }) => sum + size, 0) > MAX_SPOOL_RECORD_BYTES) {
      throw tooManyRecords(`list ${taskId} on volume ${this.#volumeName}`)
    }
    const limit = pLimit(CONCURRENT_READS)
    yield* await Promise.all(
      records.map(({ name }) =>
        limit(async () => {
          const fileName = name.slice(0, -RECORD_SUFFIX.length)
          return { fileName, text: await this.readRecord(taskId, fileName, { signal }) }
        }),
      ),
    )
  }

  async readRecord(
    taskId: string,
    fileName: string,
    { signal }: CallOptions = {},
  ): Promise<string | undefined> {
    return readIfThere(this.open(taskId, `${fileName}${RECORD_SUFFIX}`, { signal }))
  }

  async open(
    taskId: string,
    fileName: string,
    { signal, offset = 0 }: OpenOptions = {},
  ): Promise<ReadableStream<Uint8Array>> {
    const volume = await this.#connect(signal)
    const path = `${this.#folder}/${taskId}/${fileName}`
    const explain = (error: unknown): unknown =>
      mapSandboxError(error, `read ${path} on volume ${this.#volumeName}`, signal)
    try {
      const body = await volume.readFile(path, {
        format: 'stream',
        ...this.#call(signal),
        requestTimeoutMs: 0,
      })
      return skipBytes(
        mapStreamErrors(body, async (error) => explain(error)),
        offset,
      )
    } catch (error) {
      throw explain(error)
    }
  }

  async delete(taskId: string, fileName: string, { signal }: CallOptions = {}): Promise<boolean> {
    const volume = await this.#connect(signal)
    const pending = `${SPOOL_FOLDERS.pending}/${fileName}`
    const owner = await readIfThere(this.open(taskId, pending, { signal }))
    if (owner !== undefined && owner !== '' && (await this.#isFresh(volume, taskId, pending, signal))) {
      throw beingDelivered(`delete ${taskId}/${fileName} on volume ${this.#volumeName}`)
    }
    const hadRecord = await this.#remove(volume, taskId, `${fileName}${RECORD_SUFFIX}`, signal)
    const hadBytes = await this.#remove(volume, taskId, fileName, signal)
    if (owner !== undefined) await this.#remove(volume, taskId, pending, signal)
    return hadRecord || hadBytes
  }

  /** Whether a marker's owner, which cannot be looked up from here, has said lately that it is at work. */
  async #isFresh(
    volume: Volume,
    taskId: string,
    file: string,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    const path = `${this.#folder}/${taskId}/${file}`
    try {
      const { mtime } = await volume.getInfo(path, this.#call(signal))
      return Date.now() - mtime.getTime() < HELD_MS
    } catch (error) {
      const mapped = mapSandboxError(error, `look at ${path} on volume ${this.#volumeName}`, signal)
      if (isConductorError(mapped) && mapped.code === 'NOT_FOUND') return false
      throw mapped
    }
  }

  /** Resolves false when it was not there. */
  async #remove(
    volume: Volume,
    taskId: string,
    file: string,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    const path = `${this.#folder}/${taskId}/${file}`
    try {
      await volume.remove(path, this.#call(signal))
      return true
    } catch (error) {
      const mapped = mapSandboxError(error, `delete ${path} on volume ${this.#volumeName}`, signal)
      if (isConductorError(mapped) && mapped.code === 'NOT_FOUND') return false
      throw mapped
    }
  }

  async #connect(signal: AbortSignal | undefined): Promise<Volume> {
    signal?.throwIfAborted()
    this.#volume ??= this.#find()
    try {
      return await this.#volume
    } catch (error) {
      // The next call asks again: what failed once may have been the network.
      this.#volume = undefined
      throw mapSandboxError(error, `connect to volume ${this.#volumeName}`, signal)
    }
  }

  async #find(): Promise<Volume> {
    const connection = toConnectionOpts(this.#options)
    const found = (await Volume.list(connection)).find(({ name }) => name === this.#volumeName)
    if (found === undefined) {
      throw new ConductorError('NOT_FOUND', `there is no volume named ${this.#volumeName}`)
    }
    return Volume.connect(found.volumeId, connection)
  }

  #call(signal: AbortSignal | undefined): { apiUrl?: string; signal?: AbortSignal } {
    return {
      ...(this.#options.volumeApiUrl === undefined ? {} : { apiUrl: this.#options.volumeApiUrl }),
      ...(signal === undefined ? {} : { signal }),
    }
  }
}

/** Makes a volume unless there is one of that name. */
export async function ensureVolume(
  name: string,
  options: E2bOptions,
  { signal }: CallOptions = {},
): Promise<void> {
  const connection = { ...toConnectionOpts(options), ...(signal === undefined ? {} : { signal }) }
  try {
    const found = (await Volume.list(connection)).some((volume) => volume.name === name)
    if (!found) await Volume.create(name, connection)
  } catch (error) {
    throw mapSandboxError(error, `make volume ${name}`, signal)
  }
}
