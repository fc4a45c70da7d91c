import { randomBytes } from 'node:crypto'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { JailMaker, Mount } from '../jail/jail.js'
import { runTool } from '../jail/run-tool.js'
import { RequestError } from '../request-error.js'
import { Sandbox, type SandboxConfig } from './sandbox.js'

/** What the creator of a sandbox decides; the rest is made up here. */
export type SandboxRequest = Omit<SandboxConfig, 'id' | 'accessToken'>

/** All sandboxes of a server. */
export class Sandboxes {
  readonly #byId = new Map<string, Sandbox>()
  readonly #maker: JailMaker
  readonly #folder: string
  readonly #onNotice: (line: string) => void
  #closed = false

  constructor(maker: JailMaker, folder: string, onNotice: (line: string) => void) {
    this.#maker = maker
    this.#folder = folder
    this.#onNotice = onNotice
  }

  get path(): string {
    return this.#maker.path
  }

  async create(request: SandboxRequest, mounts: readonly Mount[]): Promise<Sandbox> {
    if (this.#closed) throw new RequestError('unavailable', 'the server is closing')
    const id = `i${randomBytes(12).toString('hex').slice(0, 19)}`
    const rootFolder = join(this.#folder, id)
    const config = { ...request, id, accessToken: randomBytes(24).toString('hex') }
    await mkdir(rootFolder, { recursive: true, mode: 0o755 })
    try {
      const sandbox = await Sandbox.start(
        config,
        this.#maker,
        { sandboxId: id, rootFolder, mounts },
        {
          onTimeout: (sandbox) => void this.#timeOut(sandbox),
          onGone: () => this.#remove(id, rootFolder),
        },
      )
      this.#byId.set(id, sandbox)
      if (this.#closed) await sandbox.kill()
      return sandbox
    } catch (error) {
      await this.#remove(id, rootFolder)
      throw error
    }
  }

  get(id: string): Sandbox {
    const sandbox = this.#byId.get(id)
    if (sandbox === undefined || sandbox.state === 'killed')
      throw new RequestError('not_found', `Sandbox ${id} not found`)
    return sandbox
  }

  all(): Sandbox[] {
    return [...this.#byId.values()].filter(({ state }) => state !== 'killed')
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#byId.values()].map((sandbox) => sandbox.kill()))
  }

  async #timeOut(sandbox: Sandbox): Promise<void> {
    try {
      if (sandbox.config.onTimeout === 'kill') await sandbox.kill()
      else await sandbox.pause(sandbox.config.keepMemory)
    } catch (error) {
      // Nobody asked, so nobody else can be told.
      this.#onNotice(`local E2B: the timeout of sandbox ${sandbox.config.id} failed: ${String(error)}`)
    }
  }

  async #remove(id: string, rootFolder: string): Promise<void> {
    this.#byId.delete(id)
    await rm(`${rootFolder}.mounts`, { force: true })
    await removeTree(rootFolder)
  }
}

/** Removes a folder whatever a sandbox has made of it: as deep as it likes, and with folders it may not look into. */
async function removeTree(folder: string): Promise<void> {
  try {
    await runTool('rm', ['-rf', '--', folder])
  } catch {
    await runTool('chmod', ['-R', 'u+rwX', '--', folder])
    await runTool('rm', ['-rf', '--', folder])
  }
}
