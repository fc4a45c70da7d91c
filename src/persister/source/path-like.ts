const plainSegments = /^[\w.@+-]{1,255}(\/[\w.@+-]{1,255})+\/?$/
const plainFileName = /^[\w.@+-]{1,250}\.[A-Za-z][A-Za-z0-9]{0,9}$/

/**
 * Whether a string was more likely meant as the path of a file than as content to store. Only used for strings that name
 * no existing file, to refuse a mistyped path rather than store its letters.
 */
export function looksLikePath(text: string): boolean {
  if (text === '' || text.length > 4096 || /[\n\r\0]/.test(text)) return false
  if (/^(\/|\.\.?\/|~\/|file:\/\/)/.test(text) || text === '.' || text === '..') return true
  return plainSegments.test(text) || plainFileName.test(text)
}
