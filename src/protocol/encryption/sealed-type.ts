/** Media type of every encrypted result. */
const SEALED_TYPE = 'application/vnd.stu-conductor.encrypted'
/** Longest content type that every tier keeps. */
const MAX_TYPE_CHARS = 255
const UNKNOWN_TYPE = 'application/octet-stream'

/** What an encrypted result's content type tells. */
export interface SealedType {
  /** Id of the key that it is encrypted for, 16 hex digits; undefined when it does not say. A hint: the header counts. */
  readonly keyId: string | undefined
  /** Content type of the content. */
  readonly contentType: string
}

/**
 * The content type that an encrypted result is stored with. It is how readers know one: every tier carries a content type, every
 * grant admits it, and it is the truth about the bytes that lie there. The content's own type is a parameter of it, left out
 * where it would make the whole longer than 255 characters.
 */
export function formatSealedType({ keyId, contentType }: { keyId: string; contentType: string }): string {
  const plain = `${SEALED_TYPE}; v=1; key=${keyId}`
  // Percent signs are allowed in a parameter's value; these five are not: https://www.rfc-editor.org/rfc/rfc9110#name-tokens
  const type = encodeURIComponent(contentType).replace(
    /[()'*!]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`,
  )
  const whole = `${plain}; type=${type}`
  return whole.length <= MAX_TYPE_CHARS ? whole : plain
}

/** Whether a content type is that of an encrypted result. */
export function isSealedType(contentType: string): boolean {
  return mediaType(contentType) === SEALED_TYPE
}

/** Reads such a content type, whoever wrote it; `undefined` for any other. Parameters that make no sense are passed over. */
export function parseSealedType(contentType: string): SealedType | undefined {
  if (!isSealedType(contentType)) return undefined
  const parameters = new Map(
    contentType
      .split(';')
      .slice(1)
      .map((parameter) => {
        const [name = '', value = ''] = parameter.split('=', 2)
        return [name.trim().toLowerCase(), value.trim()]
      }),
  )
  const keyId = parameters.get('key')
  return {
    keyId: keyId !== undefined && /^[0-9a-f]{16}$/.test(keyId) ? keyId : undefined,
    contentType: decodeType(parameters.get('type') ?? ''),
  }
}

function mediaType(contentType: string): string {
  return contentType.split(';', 1)[0]?.trim().toLowerCase() ?? ''
}

function decodeType(encoded: string): string {
  let type: string
  try {
    type = decodeURIComponent(encoded)
  } catch {
    return UNKNOWN_TYPE
  }
  return /^[\x21-\x7e]+\/[\x20-\x7e]*$/.test(type) && !isSealedType(type) ? type : UNKNOWN_TYPE
}
