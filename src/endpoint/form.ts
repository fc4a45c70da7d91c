import { Busboy, type BusboyFileStream, type BusboyInstance } from '@fastify/busboy'
import { HttpError } from './http-error.js'
import { readWithStallCheck } from './stall-check.js'
import { Waiting } from './waiting.js'

/** Fields that a form may have besides its file, with room for those of later versions. */
const MAX_FIELDS = 32
/** Longest name of a field, in characters; the parser itself sets no bound. */
const MAX_FIELD_NAME = 256
/** Longest headers of one part. */
const MAX_PART_HEADER_BYTES = 16 * 1024
/** Room for bytes that are under way inside the parser, and for boundaries. */
const SLACK_BYTES = 8 << 20
/** Pieces that the parser is fed in; it looks at each at once. */
const FEED_BYTES = 1 << 20
/** Less than a piece, so that pieces are handed on as they are instead of being gathered first. */
const FILE_BUFFER_BYTES = 64 * 1024

/** What a form's file part says of itself. */
export interface FormFile {
  readonly chunks: AsyncIterable<Uint8Array>
  /** Empty when the part names none. */
  readonly contentType: string
}

/** How to read a form. */
export interface FormOptions {
  /** Largest field, in bytes. */
  readonly maxFieldBytes: number
  /** Longest time without a byte. */
  readonly stallTimeoutMs: number
  readonly signal: AbortSignal
  /** Takes the file while it arrives, wherever in the form it stands; `fields` holds what came before it. */
  readonly onFile: (file: FormFile, fields: ReadonlyMap<string, string>) => Promise<void>
}

/**
 * Reads a multipart/form-data body to its end and gives its fields, in whatever order fields and file come. Throws an
 * {@link HttpError} for anything but a whole form with exactly one `file`.
 */
export async function readForm(request: Request, options: FormOptions): Promise<Map<string, string>> {
  const { maxFieldBytes, stallTimeoutMs, onFile } = options
  const parser = startParser(request.headers.get('content-type'), maxFieldBytes)
  if (request.body === null) throw malformed('the request has no body')
  const waiting = new Waiting(options.signal)
  const fail = (error: unknown): void => waiting.giveUp(error)
  const fields = takeFields(parser, maxFieldBytes, fail)
  const file = takeFile(parser, (found) => onFile(found, fields), fail)
  try {
    let fedBytes = 0
    for await (const chunk of readWithStallCheck(request.body, stallTimeoutMs, waiting)) {
      for (let at = 0; at < chunk.length; at += FEED_BYTES) {
        const piece = chunk.subarray(at, at + FEED_BYTES)
        fedBytes += piece.length
        // Whatever is not the file is small: nobody needs megabytes of headers, preamble or fields without end.
        if (fedBytes - file.bytesTaken() > maxFieldBytes + SLACK_BYTES) {
          throw new HttpError(413, 'too_large', 'the form is too large besides its file')
        }
        await waiting.until<void>((done) => parser.write(asBuffer(piece), () => done()))
      }
    }
    await waiting.until<void>((done) => {
      parser.once('finish', done)
      parser.end()
    })
    await file.taken()
  } catch (error) {
    parser.destroy()
    // Whoever takes the file cleans up before this is answered.
    await file.abandon(error)
    throw error
  }
  return fields
}

function takeFields(
  parser: BusboyInstance,
  maxFieldBytes: number,
  fail: (error: HttpError) => void,
): Map<string, string> {
  const fields = new Map<string, string>()
  parser.on('error', (cause) => fail(new HttpError(400, 'incomplete_body', 'the form is cut off', { cause })))
  parser.on('fieldsLimit', () => fail(malformed(`a form may have at most ${MAX_FIELDS} fields`)))
  parser.on('field', (name: unknown, value, _nameCut, valueCut) => {
    if (valueCut) fail(new HttpError(413, 'too_large', `a field has more than ${maxFieldBytes} bytes`))
    else if (typeof name !== 'string' || name === '') fail(malformed('a part of the form has no name'))
    else if (name.length > MAX_FIELD_NAME) fail(malformed('a field of the form has too long a name'))
    // Whoever stands in between might go by the other one.
    else if (fields.has(name)) fail(malformed('a field of the form comes twice'))
    else fields.set(name, value)
  })
  return fields
}

/** The form's one file, on its way. */
interface FileOnItsWay {
  bytesTaken(): number
  /** Resolves when it was taken whole; rejects when there was none. */
  taken(): Promise<void>
  /** Lets whoever takes it know that no more comes, and waits until that is understood. */
  abandon(error: unknown): Promise<void>
}

function takeFile(
  parser: BusboyInstance,
  take: (file: FormFile) => Promise<void>,
  fail: (error: unknown) => void,
): FileOnItsWay {
  let found: { readonly stream: BusboyFileStream; readonly taken: Promise<void> } | undefined
  let bytesTaken = 0
  const count = async function* (stream: BusboyFileStream): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      bytesTaken += chunk.length
      yield chunk
    }
  }
  parser.on('file', (name, stream, _filename, _encoding, contentType) => {
    // What goes wrong after the form has been given up is of no interest.
    stream.on('error', () => undefined)
    if (name !== 'file' || found !== undefined) {
      stream.resume()
      return fail(malformed('a form must have exactly one file, in the field "file"'))
    }
    found = { stream, taken: take({ chunks: count(stream), contentType }) }
    found.taken.catch(fail)
  })
  return {
    bytesTaken: () => bytesTaken,
    taken: async () => {
      if (found === undefined) {
        throw new HttpError(422, 'missing_field', 'the form has no file: send it as the field "file"')
      }
      await found.taken
    },
    abandon: async (error) => {
      found?.stream.destroy(error instanceof Error ? error : new Error('abandoned'))
      await found?.taken.catch(() => undefined)
    },
  }
}

function startParser(contentType: string | null, maxFieldBytes: number): BusboyInstance {
  if (contentType === null || !/^multipart\/form-data\s*(;|$)/i.test(contentType)) {
    throw new HttpError(415, 'unsupported_media_type', 'results are posted as multipart/form-data')
  }
  try {
    return new Busboy({
      headers: { 'content-type': contentType },
      fileHwm: FILE_BUFFER_BYTES,
      highWaterMark: FEED_BYTES,
      isPartAFile: (name, _type, filename) => filename !== undefined || name === 'file',
      limits: {
        fieldSize: maxFieldBytes,
        fields: MAX_FIELDS,
        headerSize: MAX_PART_HEADER_BYTES,
        headerPairs: 32,
      },
    })
  } catch (cause) {
    throw new HttpError(400, 'malformed_form', 'the content type names no usable boundary', { cause })
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function malformed(message: string): HttpError {
  return new HttpError(400, 'malformed_form', message)
}
