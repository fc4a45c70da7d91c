import { realpath } from 'node:fs/promises'
import { dirname } from 'node:path'
import { ensureFolder } from '../../files/file-operations.js'
import { SandboxRoot } from '../../files/sandbox-root.js'
import type { Jail, JailMaker, JailSpec } from '../jail.js'
import type { Pipes } from '../pipes.js'
import { PlainJail } from './plain-jail.js'
import { OWN_PATHS } from './rewrite-paths.js'

/** Makes jails that are only folders, where namespaces are not to be had. */
export class PlainJails implements JailMaker {
  readonly isolation = 'plain'
  readonly path = [dirname(process.execPath), process.env.PATH ?? '/usr/local/bin:/usr/bin:/bin'].join(':')
  readonly #pipes: Pipes

  constructor(pipes: Pipes) {
    this.#pipes = pipes
  }

  async make(spec: JailSpec): Promise<Jail> {
    // Processes see real paths, so that is what paths they send back have to be compared with.
    const rootFolder = await realpath(spec.rootFolder)
    const root = new SandboxRoot(rootFolder)
    for (const folder of [...OWN_PATHS, '/root', ...spec.mounts.map(({ path }) => path)])
      await ensureFolder(root, folder)
    return new PlainJail({ ...spec, rootFolder }, this.#pipes)
  }
}
