import { Volume, VolumeFileType } from 'e2b'
import pLimit from 'p-limit'
import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import { RECORD_SUFFIX } from '../protocol/key.js'
import { MAX_RECORD_BYTES } from '../protocol/parse.js'
import type { OpenOptions } from '../stores/result-store.js'
import type { SpoolFiles, SpoolRecordFile } from '../stores/spool-store.js'
import { skipBytes } from '../streams/skip-bytes.js'
import { type E2bOptions, toConnectionOpts } from './e2b-sandboxes.js'
import { mapSandboxError } from './map-sandbox-error.js'
import { readLimited } from './sandbox-files.js'

const CONCURRENT_READS = 16

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
    const records = entries.filter(
      ({ name, type, size }) =>
        type === VolumeFileType.FILE &&
        name.endsWith(RECORD_SUFFIX) &&
        !name.startsWith('.') &&
        size <= MAX_RECORD_BYTES,
    )
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
    try {
      return await readLimited(await this.open(taskId, `${fileName}${RECORD_SUFFIX}`, { signal }))
    } catch (error) {
      if (isConductorError(error) && error.code === 'NOT_FOUND') return undefined
      throw error
    }
  }

  async open(
    taskId: string,
    fileName: string,
    { signal, offset = 0 }: OpenOptions = {},
  ): Promise<ReadableStream<Uint8Array>> {
    const volume = await this.#connect(signal)
    const path = `${this.#folder}/${taskId}/${fileName}`
    try {
      const body = await volume.readFile(path, {
        format: 'stream',
        ...this.#call(signal),
        requestTimeoutMs: 0,
      })
      return skipBytes(body, offset)
    } catch (error) {
      throw mapSandboxError(error, `read ${path} on volume ${this.#volumeName}`, signal)
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
