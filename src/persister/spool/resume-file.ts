import { mkdir, readFile, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { ResultRecord } from '../../protocol/record.js'
import { spoolFileName } from '../../protocol/spool-layout.js'
import { systemCode } from '../fs-error.js'
import { replaceFile } from './durable-file.js'
import { taskFolder } from './record-file.js'

/** Folder inside a task's folder for uploads that were begun and are not finished. */
const UPLOAD_FOLDER = '.upload'

/** What is known of an upload in several steps, kept across processes. */
export interface ResumeState {
  /** `undefined` when there is none that can be read. */
  load(): Promise<unknown>
  /** Rejects when it cannot be kept; the upload then only cannot be resumed. */
  save(state: object): Promise<void>
  clear(): Promise<void>
}

/** The upload state of a result in the spool. */
export function resumeFile(localDir: string, record: ResultRecord): ResumeState {
  const file = spoolFileName(record.timestamp, record.name)
  const folder = taskFolder(localDir, record.task_id)
  const path = `${folder}/${UPLOAD_FOLDER}/${file}`
  return {
    load: async () => {
      try {
        return JSON.parse(await readFile(path, 'utf8')) as unknown
      } catch (error) {
        if (error instanceof SyntaxError || systemCode(error) === 'ENOENT') return undefined
        throw error
      }
    },
    save: async (state) => {
      await mkdir(dirname(path), { recursive: true })
      // Unfinished files belong where they are swept up after a crash.
      await replaceFile(path, JSON.stringify(state), { folder })
    },
    clear: () => rm(path, { force: true }),
  }
}
