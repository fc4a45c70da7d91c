import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import { RECORD_SUFFIX } from '../protocol/key.js'
import { MAX_RECORD_BYTES, MAX_SPOOL_RECORD_BYTES } from '../protocol/parse.js'
import type { OpenOptions } from '../stores/result-store.js'
import {
  beingDelivered,
  type SpoolFiles,
  type SpoolRecordFile,
  tooManyRecords,
} from '../stores/spool-store.js'
import { readTextLimited } from '../streams/read-text-limited.js'
import { skipBytes } from '../streams/skip-bytes.js'
import { DELETE_EXIT, deleteScript } from './delete-script.js'
import { parseRecords, recordsScript } from './records-script.js'
import type { RemoteSandbox } from './remote-sandbox.js'
import { runPlainly } from './run-plainly.js'

/** The spool inside a running sandbox. Reading all records of a task is one command, however many there are. */
export class SandboxFiles implements SpoolFiles {
  readonly #sandbox: RemoteSandbox
  readonly #folder: string

  /** @param folder the spool's absolute path in the sandbox */
  constructor(sandbox: RemoteSandbox, folder: string) {
    this.#sandbox = sandbox
    this.#folder = folder
  }

  async *readRecords(taskId: string, { signal }: CallOptions = {}): AsyncGenerator<SpoolRecordFile> {
    const script = recordsScript(`${this.#folder}/${taskId}`)
    const { exitCode, stdout, stderr } = await runPlainly(this.#sandbox, script, { signal })
    const doing = `list ${taskId} in sandbox ${this.#sandbox.id}`
    if (Buffer.byteLength(stdout) > MAX_SPOOL_RECORD_BYTES) throw tooManyRecords(doing)
    const records = exitCode === 0 ? parseRecords(stdout) : undefined
    if (records === undefined) {
      throw new ConductorError('COMMAND_FAILED', `${doing} failed: ${stderr.trim().slice(-500)}`)
    }
    yield* records
  }

  async readRecord(
    taskId: string,
    fileName: string,
    { signal }: CallOptions = {},
  ): Promise<string | undefined> {
    return readIfThere(this.#sandbox.openFile(this.#path(taskId, `${fileName}${RECORD_SUFFIX}`), { signal }))
  }

  async open(
    taskId: string,
    fileName: string,
    { signal, offset = 0 }: OpenOptions = {},
  ): Promise<ReadableStream<Uint8Array>> {
    // E2B's file API knows no ranges: what was read before is read again and dropped.
    return skipBytes(await this.#sandbox.openFile(this.#path(taskId, fileName), { signal }), offset)
  }

  async delete(taskId: string, fileName: string, { signal }: CallOptions = {}): Promise<boolean> {
    const script = deleteScript(`${this.#folder}/${taskId}`, fileName)
    const { exitCode, stderr } = await runPlainly(this.#sandbox, script, { signal })
    if (exitCode === 0) return true
    if (exitCode === DELETE_EXIT.absent) return false
    const doing = `delete ${taskId}/${fileName} in sandbox ${this.#sandbox.id}`
    if (exitCode === DELETE_EXIT.held) throw beingDelivered(doing)
    throw new ConductorError('COMMAND_FAILED', `${doing} failed: ${stderr.trim().slice(-500)}`)
  }

  #path(taskId: string, fileName: string): string {
    return `${this.#folder}/${taskId}/${fileName}`
  }
}

/** Reads a small file's text; `undefined` when there is no such file, and once it is larger than any honest record. */
export async function readIfThere(opening: Promise<ReadableStream<Uint8Array>>): Promise<string | undefined> {
  let body: ReadableStream<Uint8Array>
  try {
    body = await opening
  } catch (error) {
    if (isConductorError(error) && error.code === 'NOT_FOUND') return undefined
    throw error
  }
  return readLimited(body)
}

/** Reads a small file's text; `undefined` once it is larger than any honest record. */
export async function readLimited(body: ReadableStream<Uint8Array>): Promise<string | undefined> {
  return readTextLimited(body, MAX_RECORD_BYTES)
}
