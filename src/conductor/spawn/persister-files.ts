import { readFile } from 'node:fs/promises'
import { ConductorError } from '../../errors.js'

/** A file of the in-sandbox program. */
export interface PersisterFile {
  readonly name: string
  readonly data: Uint8Array
}

/** Names of its files. With a package.json of its own: that of a project around it may say that all its files are ES modules. */
export const PERSISTER_FILES = [
  'persist-result',
  'persist-result.js',
  'persist-result.sh',
  'package.json',
] as const

let files: Promise<readonly PersisterFile[]> | undefined

/** Reads the bundled persister, once per process. It lies in `dist/persist-result/`, beside the compiled SDK. */
export function readPersister(): Promise<readonly PersisterFile[]> {
  files ??= Promise.all(PERSISTER_FILES.map(readOne)).catch((error: unknown) => {
    files = undefined
    throw error
  })
  return files
}

async function readOne(name: string): Promise<PersisterFile> {
  // Compiled, this file lies in dist/conductor/spawn/; as source, in src/conductor/spawn/, with the bundle in dist/ all the same.
  const folder = import.meta.url.endsWith('.ts') ? '../../../dist/persist-result' : '../../persist-result'
  const url = new URL(`${folder}/${name}`, import.meta.url)
  try {
    return { name, data: await readFile(url) }
  } catch (cause) {
    throw new ConductorError('NOT_FOUND', `the persister's file ${name} is missing: run npm run build`, {
      cause,
    })
  }
}
