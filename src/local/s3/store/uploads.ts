import { randomBytes } from 'node:crypto'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ChecksumAlgorithm } from '../body/digests.js'
import { S3Error } from '../errors.js'
import { compareKeys } from './key-index.js'
import { openRecord, type RecordFile, RecordWriter, syncFolder } from './record-file.js'
import type { ObjectAttributes, PartRecord } from './records.js'

/** What an upload in parts will become. */
export interface UploadPlan {
  readonly key: string
  readonly initiatedMs: number
  readonly attributes: ObjectAttributes
  readonly checksumAlgorithm?: ChecksumAlgorithm
  readonly checksumType: 'FULL_OBJECT' | 'COMPOSITE'
}

/** An upload in parts that is neither completed nor aborted. */
export interface Upload {
  readonly id: string
  readonly plan: UploadPlan
  /** By part number, which is the order of the bytes. */
  readonly parts: ReadonlyMap<number, PartRecord>
}

const planFile = 'upload.json'

/** The uploads in parts of one bucket, on disk and in memory. */
export class Uploads {
  readonly #folder: string
  readonly #temporary: string
  readonly #uploads: Map<string, Upload & { parts: Map<number, PartRecord> }>

  private constructor(folder: string, temporary: string, uploads: readonly Upload[]) {
    this.#folder = folder
    this.#temporary = temporary
    this.#uploads = new Map(uploads.map((upload) => [upload.id, { ...upload, parts: new Map(upload.parts) }]))
  }

  /** Reads the uploads left in a folder, making it when there is none. */
  static async open(folder: string, temporary: string): Promise<Uploads> {
    await mkdir(folder, { recursive: true })
    const uploads: Upload[] = []
    for (const id of await readdir(folder)) {
      const upload = await readUpload(join(folder, id), id)
      // Without a plan it was never acknowledged, or is an upload whose removal was cut short.
      if (upload === undefined) await rm(join(folder, id), { recursive: true, force: true })
      else uploads.push(upload)
    }
    return new Uploads(folder, temporary, uploads)
  }

  async create(plan: UploadPlan): Promise<string> {
    const id = randomBytes(24).toString('base64url')
    const folder = join(this.#folder, id)
    await mkdir(folder)
    await writeFile(join(folder, planFile), JSON.stringify(plan), { flush: true })
    await syncFolder(folder)
    await syncFolder(this.#folder)
    this.#uploads.set(id, { id, plan, parts: new Map() })
    return id
  }

  /** Throws `NoSuchUpload`, also when the upload is for another key. */
  get(id: string, key: string): Upload {
    const upload = this.#uploads.get(id)
    if (upload === undefined || upload.plan.key !== key)
      throw new S3Error('NoSuchUpload', { details: { UploadId: id } })
    return upload
  }

  /** All of them, by key and then by age. */
  list(): Upload[] {
    return [...this.#uploads.values()].sort(
      (a, b) => compareKeys(a.plan.key, b.plan.key) || a.plan.initiatedMs - b.plan.initiatedMs,
    )
  }

  /** Starts a part that nobody sees yet. */
  stage(): Promise<RecordWriter> {
    return RecordWriter.create(this.#temporary)
  }

  /** Makes a staged body a part, replacing one of the same number. Throws `NoSuchUpload` when it is over by now. */
  async commitPart(id: string, writer: RecordWriter, part: PartRecord): Promise<void> {
    await writer.finish(part)
    const upload = this.#uploads.get(id)
    if (upload === undefined) throw new S3Error('NoSuchUpload', { details: { UploadId: id } })
    try {
      await writer.publish(this.#partPath(id, part.partNumber))
    } catch (error) {
      // Given up meanwhile, and its folder with it.
      if (!this.#uploads.has(id))
        throw new S3Error('NoSuchUpload', { details: { UploadId: id }, cause: error })
      throw error
    }
    upload.parts.set(part.partNumber, part)
  }

  /** Opens a part; the caller closes it. */
  async openPart(id: string, partNumber: number): Promise<RecordFile<PartRecord>> {
    const file = await openRecord<PartRecord>(this.#partPath(id, partNumber))
    if (file === undefined) throw new S3Error('NoSuchUpload', { details: { UploadId: id } })
    return file
  }

  /** Forgets an upload and deletes its parts. */
  async remove(id: string): Promise<void> {
    this.#uploads.delete(id)
    // The plan first: without it, what a crash leaves is not taken for an upload.
    await rm(join(this.#folder, id, planFile), { force: true })
    await rm(join(this.#folder, id), { recursive: true, force: true })
  }

  #partPath(id: string, partNumber: number): string {
    return join(this.#folder, id, 'parts', String(partNumber))
  }
}

async function readUpload(folder: string, id: string): Promise<Upload | undefined> {
  const plan = parsePlan(await readIfThere(join(folder, planFile)))
  if (plan === undefined) return undefined
  const parts = new Map<number, PartRecord>()
  for (const name of await readdirIfThere(join(folder, 'parts'))) {
    const file = await openRecord<PartRecord>(join(folder, 'parts', name))
    await file?.handle.close()
    if (file !== undefined) parts.set(file.record.partNumber, file.record)
  }
  return { id, plan, parts }
}

/** A plan cut short by a crash was never acknowledged. */
function parsePlan(text: string | undefined): UploadPlan | undefined {
  if (text === undefined) return undefined
  try {
    return JSON.parse(text) as UploadPlan
  } catch {
    return undefined
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  return readFile(path, 'utf8').catch(undefinedIfAbsent)
}

async function readdirIfThere(path: string): Promise<string[]> {
  return (await readdir(path).catch(undefinedIfAbsent)) ?? []
}

function undefinedIfAbsent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}
