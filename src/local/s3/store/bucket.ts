import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import pLimit from 'p-limit'
import { KeyLock } from '../../../key-lock.js'
import { S3Error } from '../errors.js'
import {
  type DefaultEncryption,
  readDefaultEncryption,
  writeDefaultEncryption,
} from './default-encryption.js'
import { KeyIndex } from './key-index.js'
import { openRecord, pathOfKey, type RecordFile, RecordWriter, syncFolder } from './record-file.js'
import type { ObjectRecord } from './records.js'
import { Uploads } from './uploads.js'

/** Throws when the object as it is now must not be replaced or deleted. */
export type WriteCondition = (current: ObjectRecord | undefined) => void

/** The objects of one bucket: bodies in files, everything else also in memory. */
export class Bucket {
  readonly name: string
  readonly createdMs: number
  readonly uploads: Uploads
  readonly #folder: string
  readonly #temporary: string
  readonly #lock = new KeyLock()
  readonly #index: KeyIndex<ObjectRecord>
  #removed = false
  #commits = 0
  #encryption: DefaultEncryption

  private constructor(
    place: { name: string; folder: string; temporary: string; createdMs: number },
    index: KeyIndex<ObjectRecord>,
    uploads: Uploads,
    encryption: DefaultEncryption,
  ) {
    this.name = place.name
    this.createdMs = place.createdMs
    this.#folder = place.folder
    this.#temporary = place.temporary
    this.#index = index
    this.uploads = uploads
    this.#encryption = encryption
  }

  /** Opens a bucket's folder, making it when there is none, and reads every object's record. */
  static async open(place: {
    name: string
    folder: string
    temporary: string
    createdMs: number
  }): Promise<Bucket> {
    const objects = join(place.folder, 'objects')
    await mkdir(objects, { recursive: true })
    const uploads = await Uploads.open(join(place.folder, 'uploads'), place.temporary)
    const encryption = await readDefaultEncryption(place.folder)
    return new Bucket(place, KeyIndex.from(await readRecords(objects)), uploads, encryption)
  }

  /** How objects are encrypted that do not say it. */
  get encryption(): DefaultEncryption {
    return this.#encryption
  }

  /** Holds for objects that are written from now on. */
  async setEncryption(encryption: DefaultEncryption): Promise<void> {
    await this.#lock.run('', async () => {
      await writeDefaultEncryption(this.#folder, encryption)
      this.#encryption = encryption
    })
  }

  get size(): number {
    return this.#index.size
  }

  /** An object's record as it is now; the bytes may be replaced before they are opened. */
  head(key: string): ObjectRecord | undefined {
    return this.#index.get(key)
  }

  /** Opens an object; record and bytes belong together and stay as they are, whatever is written meanwhile. */
  async open(key: string): Promise<RecordFile<ObjectRecord> | undefined> {
    if (this.#index.get(key) === undefined) return undefined
    return openRecord<ObjectRecord>(this.#pathOf(key))
  }

  page(...query: Parameters<KeyIndex<ObjectRecord>['page']>): ReturnType<KeyIndex<ObjectRecord>['page']> {
    return this.#index.page(...query)
  }

  /** Starts a body that nobody sees yet. */
  stage(): Promise<RecordWriter> {
    return RecordWriter.create(this.#temporary)
  }

  /** Makes a staged body the object, unless the condition throws. On return it is on the disk. */
  async commit(writer: RecordWriter, record: ObjectRecord, condition: WriteCondition): Promise<void> {
    await writer.finish(record)
    if (this.#removed) throw new S3Error('NoSuchBucket', { details: { BucketName: this.name } })
    this.#commits += 1
    try {
      await this.#lock.run(record.key, async () => {
        condition(this.#index.get(record.key))
        await writer.publish(this.#pathOf(record.key))
        this.#index.set(record.key, record)
      })
    } finally {
      this.#commits -= 1
    }
  }

  /** Deletes an object, unless the condition throws; one that is not there is as good as deleted. */
  async delete(key: string, condition: WriteCondition = () => undefined): Promise<void> {
    await this.#lock.run(key, async () => {
      const current = this.#index.get(key)
      condition(current)
      if (current === undefined) return
      const path = this.#pathOf(key)
      await rm(path)
      await syncFolder(join(path, '..'))
      this.#index.delete(key)
    })
  }

  /** Deletes the bucket's folder. Throws `BucketNotEmpty`. */
  async remove(): Promise<void> {
    if (this.size > 0 || this.#commits > 0)
      throw new S3Error('BucketNotEmpty', { details: { BucketName: this.name } })
    this.#removed = true
    await rm(this.#folder, { recursive: true, force: true })
  }

  #pathOf(key: string): string {
    return pathOfKey(join(this.#folder, 'objects'), key)
  }
}

async function readRecords(folder: string): Promise<(readonly [string, ObjectRecord])[]> {
  const limit = pLimit(32)
  const files = (await readdir(folder, { recursive: true, withFileTypes: true })).filter((entry) =>
    entry.isFile(),
  )
  return Promise.all(
    files.map((entry) =>
      limit(async (): Promise<readonly [string, ObjectRecord]> => {
        const path = join(entry.parentPath, entry.name)
        const file = await openRecord<ObjectRecord>(path)
        if (file === undefined) throw new Error(`${path} vanished while the data folder was read`)
        await file.handle.close()
        return [file.record.key, file.record]
      }),
    ),
  )
}
