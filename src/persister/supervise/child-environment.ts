import { mkdir, stat } from 'node:fs/promises'
import { delimiter, dirname } from 'node:path'
import { writeDurably } from '../../files/durable-file.js'
import { ENV } from '../../protocol/environment.js'
import { defaultGrantPath, readGrantText } from '../remote/grant-file.js'
import type { Settings } from '../settings.js'

function prefixed(folder: string, list: string | undefined): string {
  return list === undefined || list === '' ? folder : `${folder}${delimiter}${list}`
}

/**
 * The environment of a supervised command: without the grant, which stays in its file, and such that `persist-result` and
 * `require('persist-result.js')` find the program that is running.
 */
export function childEnvironment(settings: Settings, taskId: string): NodeJS.ProcessEnv {
  const { [ENV.grant]: _secret, ...rest } = process.env
  const folder = dirname(process.argv[1] ?? __filename)
  return {
    ...rest,
    [ENV.workerId]: taskId,
    [ENV.localDir]: settings.localDir,
    PATH: prefixed(folder, process.env.PATH),
    NODE_PATH: prefixed(folder, process.env.NODE_PATH),
  }
}

/** Puts a grant that came in the environment where the command's own calls of persist-result look for it. */
export async function keepGrant(settings: Settings, taskId: string): Promise<void> {
  const text = settings.env.grant
  if (text === undefined || readGrantText(text)?.task_id !== taskId) return
  const path = defaultGrantPath(settings.localDir, taskId)
  try {
    await stat(path)
    // One that a conductor wrote is as good or fresher.
    return
  } catch {
    await mkdir(dirname(path), { recursive: true })
  }
  await writeDurably(path, text, { mode: 0o600 })
}
