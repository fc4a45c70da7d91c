import type { IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import { Busboy, type BusboyHeaders, type BusboyInstance } from '@fastify/busboy'
import { writeFile } from '../files/file-operations.js'
import { errnoOf, RequestError } from '../request-error.js'
import type { Sandbox } from '../sandbox/sandbox.js'

/** How an upload is answered, one per file. */
export interface WrittenFile {
  readonly path: string
  readonly name: string
  readonly type: 'file'
  readonly metadata?: Readonly<Record<string, string>>
}

/** Where uploaded bytes go. */
export interface UploadTarget {
  /** Wins over the names of the parts. */
  readonly path: string | undefined
  expand(path: string): string
  readonly metadata: Readonly<Record<string, string>>
}

/** Writes the file or files of a request as they arrive; resolves them in their order. */
export async function receiveUpload(
  sandbox: Sandbox,
  req: IncomingMessage,
  target: UploadTarget,
): Promise<WrittenFile[]> {
  const body = decoded(req)
  const type = req.headers['content-type'] ?? ''
  if (type.toLowerCase().startsWith('multipart/form-data')) return receiveParts(sandbox, body, type, target)
  if (target.path === undefined) throw new RequestError('invalid_argument', 'the query has no path')
  return [await store(sandbox, target.path, body, target)]
}

function decoded(req: IncomingMessage): Readable {
  const encoding = req.headers['content-encoding'] ?? 'identity'
  if (encoding === 'identity') return req
  if (encoding !== 'gzip')
    throw new RequestError('invalid_argument', `unsupported content encoding '${encoding}'`)
  const gunzip = createGunzip()
  // Whichever side fails, the reader of the decompressed bytes hears of it; it may come late.
  gunzip.on('error', () => {})
  void pipeline(req, gunzip).catch(() => {})
  return gunzip
}

async function receiveParts(
  sandbox: Sandbox,
  body: Readable,
  contentType: string,
  target: UploadTarget,
): Promise<WrittenFile[]> {
  const written: WrittenFile[] = []
  const parts: Readable[] = []
  let storing: Promise<unknown> = Promise.resolve()
  const form = openForm(contentType)
  form.on('file', (field: string, part: Readable, fileName: string | undefined) => {
    parts.push(part)
    // A part that breaks off before its turn has come has nobody else to listen.
    part.on('error', () => {})
    storing = storing.then(async () => {
      if (field !== 'file') {
        part.resume()
        return
      }
      const path = target.path ?? fileName
      if (path === undefined || path === '') throw new RequestError('invalid_argument', 'a file has no name')
      written.push(await store(sandbox, path, part, target))
    })
    // Not from within the form's own work on what it was given, of whose end nobody would then hear.
    storing.catch((error: Error) => setImmediate(() => form.destroy(error)))
  })
  try {
    await pipeline(body, form)
  } catch (error) {
    for (const part of parts) part.destroy(error as Error)
    const cause = await storing.then(
      () => error,
      (failed: unknown) => failed,
    )
    if (cause instanceof RequestError || body.errored !== null) throw cause
    throw new RequestError('invalid_argument', `malformed upload: ${String(cause)}`, { cause })
  }
  await storing
  if (written.length === 0) throw new RequestError('invalid_argument', 'the body has no file')
  return written
}

function openForm(contentType: string): BusboyInstance {
  try {
    const headers: BusboyHeaders = { 'content-type': contentType }
    // A field called `file` is a file also when it carries no file name.
    return new Busboy({ headers, preservePath: true, isPartAFile: (field) => field === 'file' })
  } catch (error) {
    throw new RequestError('invalid_argument', String(error), { cause: error })
  }
}

async function store(
  sandbox: Sandbox,
  path: string,
  body: Readable,
  { expand, metadata }: UploadTarget,
): Promise<WrittenFile> {
  const { path: real, stat } = await writeFile(sandbox.live().jail.root, expand(path), body).catch(
    explainBody,
  )
  sandbox.fileMetadata.set(stat, metadata)
  return {
    path: real,
    name: real.slice(real.lastIndexOf('/') + 1),
    type: 'file',
    ...(Object.keys(metadata).length === 0 ? {} : { metadata }),
  }
}

function explainBody(error: unknown): never {
  if (!(errnoOf(error) ?? '').startsWith('Z_')) throw error
  throw new RequestError('invalid_argument', 'malformed gzip body', { cause: error })
}
