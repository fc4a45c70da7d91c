import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { removeFile } from '../../files/disk.js'
import { replaceFile } from '../../files/durable-file.js'
import { systemCode } from '../../files/system-code.js'
import { SPOOL_FOLDERS } from '../../protocol/spool-layout.js'
import { taskFolder } from './record-file.js'

/** What is known of an upload in several steps, kept across processes. */
export interface ResumeState {
  /** `undefined` when there is none that can be read. */
  load(): unknown
  /** Rejects when it cannot be kept; the upload then only cannot be resumed. */
  save(state: object): Promise<void>
  clear(): void
}

/** File names of a task's results that have an upload begun. */
export function listUploads(localDir: string, taskId: string): string[] {
  try {
    return readdirSync(`${taskFolder(localDir, taskId)}/${SPOOL_FOLDERS.uploads}`)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw error
  }
}

/** The upload state of a result in the spool, by its file name there. */
export function resumeFile(localDir: string, taskId: string, file: string): ResumeState {
  const folder = taskFolder(localDir, taskId)
  const path = `${folder}/${SPOOL_FOLDERS.uploads}/${file}`
  return {
    load: () => {
      try {
        return JSON.parse(readFileSync(path, 'utf8')) as unknown
      } catch (error) {
        if (error instanceof SyntaxError || systemCode(error) === 'ENOENT') return undefined
        throw error
      }
    },
    save: async (state) => {
      mkdirSync(dirname(path), { recursive: true })
      // Unfinished files belong where they are swept up after a crash.
      await replaceFile(path, JSON.stringify(state), { folder })
    },
    clear: () => removeFile(path),
  }
}
