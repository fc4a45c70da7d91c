import { HttpError } from './http-error.js'

/** Bytes wanted of a body: from `start` up to, not including, `end`. */
export interface ByteRange {
  readonly start: number
  readonly end: number
}

/** What a request may ask to be true of a result. */
const PRECONDITIONS = ['if-match', 'if-unmodified-since', 'if-none-match']

/** Whether anything must be known of a result before it is deleted. */
export function hasPrecondition({ headers }: Request): boolean {
  return PRECONDITIONS.some((name) => headers.has(name))
}

/**
 * Throws 412 when the client means other bytes than these by `If-Match`, or, without one, older ones by `If-Unmodified-Since`:
 * https://www.rfc-editor.org/rfc/rfc9110#section-13.1.1
 */
export function requireSame({ headers }: Request, etag: string, modifiedAt: Date): void {
  const wanted = headers.get('if-match')
  const since = Date.parse(headers.get('if-unmodified-since') ?? '')
  const isMet =
    wanted === null
      ? // Such dates have whole seconds, and what is none says nothing.
        Number.isNaN(since) || Math.floor(modifiedAt.getTime() / 1000) * 1000 <= since
      : wanted.trim() === '*' || wanted.split(',').some((candidate) => candidate.trim() === etag)
  if (!isMet) throw unmet()
}

/** The refusal of a request whose precondition does not hold. */
export function unmet(): HttpError {
  return new HttpError(412, 'precondition_failed', 'the result is not the one that is meant')
}

/** Whether `If-None-Match` says that the client has these bytes: https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2 */
export function hasSame(request: Request, etag: string): boolean {
  const header = request.headers.get('if-none-match')
  if (header === null) return false
  if (header.trim() === '*') return true
  return header.split(',').some((candidate) => candidate.trim().replace(/^W\//, '') === etag)
}

/**
 * The part that `Range` asks for; undefined means the whole, as for several ranges at once and for an `If-Range` that names
 * other bytes: https://www.rfc-editor.org/rfc/rfc9110#section-14.2
 */
export function wantedRange(request: Request, etag: string, sizeBytes: number): ByteRange | undefined {
  const header = request.headers.get('range')
  if (header === null) return undefined
  const ifRange = request.headers.get('if-range')
  if (ifRange !== null && ifRange.trim() !== etag) return undefined
  const match = /^bytes=\s*(\d{0,16})-(\d{0,16})\s*$/i.exec(header)
  const [, first = '', last = ''] = match ?? []
  if (match === null || (first === '' && last === '')) return undefined
  if (first !== '' && last !== '' && Number(last) < Number(first)) return undefined
  // Without a first byte, the number is how many are wanted from the end.
  const start = first === '' ? Math.max(0, sizeBytes - Number(last)) : Number(first)
  const end = first === '' || last === '' ? sizeBytes : Math.min(sizeBytes, Number(last) + 1)
  if (start >= sizeBytes || start >= end) {
    throw new HttpError(416, 'range_not_satisfiable', `the result has ${sizeBytes} bytes`, {
      headers: { 'content-range': `bytes */${sizeBytes}`, 'accept-ranges': 'bytes' },
    })
  }
  return { start, end }
}
