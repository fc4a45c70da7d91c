import { randomBytes } from 'node:crypto'
import type { CallOptions } from '../../call-options.js'
import { isConductorError } from '../../errors.js'
import { WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'
import { quote } from '../../sandbox/quote.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { PERSISTER_FILES, readPersister } from '../spawn/persister-files.js'

/** Whose tools. */
export interface ToolsSpec {
  readonly taskId: string
  readonly localDir: string
}

/** Folder of the in-sandbox program as it was put there when the worker began. */
export function toolsFolder({ taskId, localDir }: ToolsSpec): string {
  return `${workerFolder(localDir, taskId)}/${WORKER_FILES.bin}`
}

/**
 * Shell condition that holds where none of the program's files is missing or was changed since the worker began, as far as
 * their times tell: it keeps honest mishaps from being run, not a worker that hides what it did.
 */
export function toolsAreFit(spec: ToolsSpec): string {
  const born = quote(`${workerFolder(spec.localDir, spec.taskId)}/${WORKER_FILES.born}`)
  const files = PERSISTER_FILES.map((name) => quote(`${toolsFolder(spec)}/${name}`))
  return files.map((file) => `[ -f ${file} ] && [ ! ${file} -nt ${born} ]`).join(' && ')
}

/** Puts the program there again, beside where it was: what is in its place may be anything. Resolves with its folder. */
export async function replaceTools(
  sandbox: RemoteSandbox,
  spec: ToolsSpec,
  { signal }: CallOptions = {},
): Promise<string> {
  const unique = randomBytes(8).toString('hex')
  const files = await readPersister()
  const putInto = async (folder: string): Promise<string> => {
    await sandbox.writeFiles(
      files.map(({ name, data }) => ({ path: `${folder}/${name}`, data })),
      { signal },
    )
    return folder
  }
  try {
    return await putInto(`${toolsFolder(spec)}-${unique}`)
  } catch (error) {
    if (!isConductorError(error) || error.code === 'SANDBOX_GONE' || error.code === 'SANDBOX_PAUSED')
      throw error
    return await putInto(`/tmp/${WORKER_FILES.bin}-${unique}`)
  }
}
