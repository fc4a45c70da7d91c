import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Busboy, type BusboyInstance } from '@fastify/busboy'
import type { FormFields } from '../auth/post-policy.js'
import { S3Error } from '../errors.js'
import type { S3Request } from '../request.js'

const fieldLimitBytes = 20_480
const fieldCountLimit = 200

/** An upload form up to its file; the file has still to be read. */
export interface Form {
  /** What came before the file, by lower-case name; S3 ignores what follows it. */
  readonly fields: FormFields
  readonly filename: string
  readonly file: AsyncIterable<Buffer>
  /** Resolves when the form came to its proper end, rejects when it did not. */
  readonly ended: Promise<unknown>
  /** Stops reading. */
  close(): void
}

/** Reads a multipart/form-data body up to its file. Throws `MalformedPOSTRequest` when it is none. */
export async function openForm({ headers, body }: S3Request): Promise<Form> {
  const fields: Record<string, string> = Object.create(null)
  const parser = startParser(headers['content-type'] ?? '')
  const ended = pipeline(Readable.from(body), parser).catch((error: NodeJS.ErrnoException) => {
    // The connection's own failures stay what they are.
    throw error.code === undefined ? new S3Error('MalformedPOSTRequest', { cause: error }) : error
  })
  // Observed by whoever reads the file; before that, by the promise below.
  ended.catch(() => undefined)
  return new Promise<Form>((resolve, reject) => {
    const refuse = (error: unknown) => {
      parser.destroy()
      reject(error)
    }
    parser.on('field', (name, value, nameTruncated, valueTruncated) => {
      if (nameTruncated || valueTruncated || Object.keys(fields).length >= fieldCountLimit) {
        refuse(
          new S3Error('InvalidRequest', {
            message: 'Your POST request fields preceding the upload file were too large.',
          }),
        )
      }
      fields[name.toLowerCase()] = value
    })
    parser.on('file', (name, file, filename) => {
      // What goes wrong after the reader has given up is of no interest.
      file.on('error', () => undefined)
      // The parser does not tell its file that the connection broke off; its reader would wait for ever.
      ended.catch((error: Error) => file.destroy(error))
      if (name.toLowerCase() !== 'file') refuse(notOneFile())
      resolve({
        fields,
        filename: filename ?? '',
        file: chunksOf(file, ended),
        ended,
        close: () => parser.destroy(),
      })
    })
    ended.then(() => reject(notOneFile()), reject)
  })
}

/** The file's chunks; fails as the form does, whatever the parser calls it. */
async function* chunksOf(file: Readable, ended: Promise<unknown>): AsyncGenerator<Buffer> {
  try {
    yield* file as AsyncIterable<Buffer>
  } catch (error) {
    await ended
    throw error
  }
}

function startParser(contentType: string): BusboyInstance {
  try {
    return new Busboy({
      headers: { 'content-type': contentType },
      fileHwm: 1 << 20,
      // Some clients send the file as a plain field.
      isPartAFile: (name, _type, filename) => filename !== undefined || name?.toLowerCase() === 'file',
      limits: { fieldNameSize: 256, fieldSize: fieldLimitBytes },
    })
  } catch (cause) {
    throw new S3Error('MalformedPOSTRequest', { cause })
  }
}

function notOneFile(): S3Error {
  return new S3Error('InvalidArgument', {
    message: 'POST requires exactly one file upload per request.',
    details: { ArgumentName: 'file', ArgumentValue: '0' },
  })
}
