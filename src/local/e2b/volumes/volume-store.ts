import { randomBytes, randomUUID } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { SandboxRoot } from '../files/sandbox-root.js'
import { runTool } from '../jail/run-tool.js'
import { RequestError } from '../request-error.js'

const RECORD = 'volume.json'
const record = z.object({ id: z.string(), name: z.string(), token: z.string() })

/** A volume: a folder that outlives the sandboxes it is mounted in. */
export interface StoredVolume extends z.output<typeof record> {
  /** Where its content lies on this machine. */
  readonly folder: string
  readonly root: SandboxRoot
}

/** Volumes in a folder of the data; they are found again when a server starts on the same folder. */
export class VolumeStore {
  readonly #folder: string
  readonly #byId = new Map<string, StoredVolume>()

  private constructor(folder: string) {
    this.#folder = folder
  }

  static async open(folder: string): Promise<VolumeStore> {
    await mkdir(folder, { recursive: true })
    const store = new VolumeStore(folder)
    for (const id of await readdir(folder)) {
      if (id.startsWith('.')) continue
      store.#keep(record.parse(JSON.parse(await readFile(join(folder, id, RECORD), 'utf8'))))
    }
    return store
  }

  async create(name: string): Promise<StoredVolume> {
    if (this.all().some((volume) => volume.name === name)) {
      throw new RequestError('conflict', `Volume with name '${name}' already exists`)
    }
    const made = { id: randomUUID(), name, token: randomBytes(24).toString('hex') }
    const volume = this.#keep(made)
    try {
      // Complete or not there, should the server be killed in between.
      const draft = join(this.#folder, `.${made.id}`)
      await mkdir(join(draft, 'content'), { recursive: true })
      await writeFile(join(draft, RECORD), JSON.stringify(made), { mode: 0o600 })
      await rename(draft, join(this.#folder, made.id))
      return volume
    } catch (error) {
      this.#byId.delete(made.id)
      throw error
    }
  }

  all(): StoredVolume[] {
    return [...this.#byId.values()]
  }

  get(id: string): StoredVolume {
    const volume = this.#byId.get(id)
    if (volume === undefined) throw new RequestError('not_found', `Volume ${id} not found`)
    return volume
  }

  findByName(name: string): StoredVolume {
    const volume = this.all().find((one) => one.name === name)
    if (volume === undefined) throw new RequestError('not_found', `Volume '${name}' not found`)
    return volume
  }

  async destroy(id: string): Promise<void> {
    const { folder } = this.get(id)
    this.#byId.delete(id)
    await rm(join(folder, '..', RECORD), { force: true })
    await runTool('rm', ['-rf', '--', join(this.#folder, id)])
  }

  #keep(made: z.output<typeof record>): StoredVolume {
    const folder = join(this.#folder, made.id, 'content')
    const volume = { ...made, folder, root: new SandboxRoot(folder) }
    this.#byId.set(made.id, volume)
    return volume
  }
}
