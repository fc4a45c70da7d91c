import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { KeyLock } from '../../../key-lock.js'
import { S3Error } from '../errors.js'
import { Bucket } from './bucket.js'
import { lockFolder } from './folder-lock.js'
import { syncFolder } from './record-file.js'

/** All buckets of a data folder. One process at a time: the folder is locked while the store is open. */
export class Store {
  readonly #folder: string
  readonly #buckets: Map<string, Bucket>
  readonly #unlock: () => Promise<void>
  readonly #lock = new KeyLock()

  private constructor(folder: string, buckets: Map<string, Bucket>, unlock: () => Promise<void>) {
    this.#folder = folder
    this.#buckets = buckets
    this.#unlock = unlock
  }

  /** Opens a data folder, making it when there is none; leftovers of interrupted writes are removed. */
  static async open(folder: string): Promise<Store> {
    await mkdir(join(folder, 'buckets'), { recursive: true })
    const unlock = await lockFolder(folder)
    try {
      await rm(join(folder, 'tmp'), { recursive: true, force: true })
      await mkdir(join(folder, 'tmp'))
      const buckets = new Map<string, Bucket>()
      for (const name of await readdir(join(folder, 'buckets'))) {
        const createdMs = await readCreation(join(folder, 'buckets', name, 'created'))
        if (createdMs === undefined) continue
        buckets.set(name, await Bucket.open({ ...place(folder, name), createdMs }))
      }
      return new Store(folder, buckets, unlock)
    } catch (error) {
      await unlock()
      throw error
    }
  }

  /** Throws `NoSuchBucket`. */
  bucket(name: string): Bucket {
    const bucket = this.#buckets.get(name)
    if (bucket === undefined) throw new S3Error('NoSuchBucket', { details: { BucketName: name } })
    return bucket
  }

  has(name: string): boolean {
    return this.#buckets.has(name)
  }

  list(): Bucket[] {
    return [...this.#buckets.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  /** Throws `InvalidBucketName`, and `BucketAlreadyOwnedByYou` when it exists. */
  async create(name: string, createdMs: number): Promise<void> {
    if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(name) || name.includes('..')) {
      throw new S3Error('InvalidBucketName', { details: { BucketName: name } })
    }
    await this.#lock.run(name, async () => {
      if (this.#buckets.has(name))
        throw new S3Error('BucketAlreadyOwnedByYou', { details: { BucketName: name } })
      const { folder, temporary } = place(this.#folder, name)
      // Left by a creation or removal that was cut short.
      await rm(folder, { recursive: true, force: true })
      const bucket = await Bucket.open({ name, folder, temporary, createdMs })
      await writeFile(join(folder, 'created'), String(createdMs), { flush: true })
      await syncFolder(join(this.#folder, 'buckets'))
      this.#buckets.set(name, bucket)
    })
  }

  /** Throws `NoSuchBucket` and `BucketNotEmpty`. */
  async remove(name: string): Promise<void> {
    await this.#lock.run(name, async () => {
      await this.bucket(name).remove()
      this.#buckets.delete(name)
    })
  }

  /** Releases the data folder; its files stay. */
  close(): Promise<void> {
    return this.#unlock()
  }
}

function place(folder: string, name: string) {
  return { name, folder: join(folder, 'buckets', name), temporary: join(folder, 'tmp') }
}

async function readCreation(path: string): Promise<number | undefined> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    // A bucket whose creation or removal was cut short.
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  return text === undefined ? undefined : Number(text)
}
