import { closeSync, ftruncateSync, renameSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { createFile, removeFile, sync, writeAt } from '../../files/disk.js'
import { temporaryPath } from '../../files/durable-file.js'
import { listResults } from '../api.js'
import { mapFsError } from '../fs-error.js'
import { retrieve } from '../retrieve.js'
import type { Settings } from '../settings.js'
import { EXIT, print, printRecord, remark } from './output.js'

/** Prints the results of a task in the spool. */
export async function listCommand(taskId: string | undefined, json: boolean): Promise<number> {
  for (const record of await listResults(taskId, { warn: remark })) await printRecord(record, json)
  return EXIT.stored
}

/** Writes a result to standard output, or to a file that appears whole or not at all. */
export async function retrieveCommand(
  settings: Settings,
  key: string,
  output: string | undefined,
): Promise<number> {
  if (output === undefined || output === '-') await retrieve(settings, key, { take: print })
  else await retrieveToFile(settings, key, resolve(output))
  return EXIT.stored
}

async function retrieveToFile(settings: Settings, key: string, output: string): Promise<void> {
  const temporary = temporaryPath(dirname(output))
  try {
    const copy = createFile(temporary, 0o666)
    try {
      let position = 0
      await retrieve(settings, key, {
        restart: async () => {
          position = 0
          ftruncateSync(copy)
        },
        take: async (chunk) => {
          await writeAt(copy, chunk, position)
          position += chunk.length
        },
      })
      await sync(copy)
    } finally {
      closeSync(copy)
    }
    renameSync(temporary, output)
  } catch (error) {
    removeFile(temporary)
    throw mapFsError(error, `cannot write ${output}`)
  }
}
