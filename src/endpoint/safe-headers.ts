/** Sent with every answer: whatever a worker stored, a browser that is led here neither runs nor keeps nor shares it. */
export const SAFE_HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy': "sandbox; default-src 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-frame-options': 'DENY',
}

/** What a body is served as when the worker said nothing usable. */
export const UNKNOWN_TYPE = 'application/octet-stream'

// RFC 9110's media-type; a worker's word may hold anything, line breaks included.
const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
const mediaTypePattern = new RegExp(
  `^${token}/${token}(?:\\s*;\\s*${token}=(?:${token}|"[ !#-\\[\\]-~]*"))*$`,
)

/** A media type as it may stand in a header; anything else becomes `application/octet-stream`. */
export function safeMediaType(said: string): string {
  const type = said.trim()
  return type.length <= 255 && mediaTypePattern.test(type) ? type : UNKNOWN_TYPE
}

/** `Content-Disposition` that has a file saved, never shown: https://www.rfc-editor.org/rfc/rfc6266 */
export function attachment(name: string): string {
  // Marks that turn the reading direction make `exe.gpj` look like a picture.
  const plain = name.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '_')
  const ascii = plain.replace(/[^\x20-\x7e]|["\\%]/g, '_')
  const encoded = encodeURIComponent(plain).replace(
    /['()*]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`,
  )
  return `attachment; filename="${ascii}"; filename*=UTF-8''${encoded}`
}
