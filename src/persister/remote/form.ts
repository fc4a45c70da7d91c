import { randomBytes } from 'node:crypto'
import type { BodyPart } from './request-body.js'

/** The file of a multipart form; it comes last. */
export interface FormFile {
  readonly fileName: string
  readonly contentType: string
  readonly body: readonly BodyPart[]
}

/** A multipart/form-data body ready to be sent. */
export interface Form {
  readonly contentType: string
  readonly body: readonly BodyPart[]
}

function quote(text: string): string {
  // As browsers do: https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data
  return text.replace(
    /["\r\n]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  )
}

/** Builds a form: its fields in the order given, then the file. */
export function makeForm(fields: Readonly<Record<string, string>>, file: FormFile): Form {
  const boundary = `----persist-result-${randomBytes(16).toString('hex')}`
  const head = Object.entries(fields)
    .map(
      ([name, value]) =>
        `--${boundary}\r\nContent-Disposition: form-data; name="${quote(name)}"\r\n\r\n${value}\r\n`,
    )
    .join('')
  const fileHead =
    `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="${quote(file.fileName)}"\r\n` +
    `Content-Type: ${file.contentType}\r\n\r\n`
  return {
    contentType: `multipart/form-data; boundary=${boundary}`,
    body: [Buffer.from(head + fileHead), ...file.body, Buffer.from(`\r\n--${boundary}--\r\n`)],
  }
}
