/** Deeper nesting is nobody's metadata, and breaks readers that descend by recursion. The object itself is the first level. */
export const MAX_METADATA_DEPTH = 100

/** Deeper than anybody's metadata, and far less than what breaks whoever descends by recursion, as `JSON.stringify` does. */
const MAX_READ_DEPTH = 1000

/** Whether JSON text has more levels than metadata may have: counts brackets outside of strings, however many there are. */
export function nestsTooDeep(text: string): boolean {
  let depth = 0
  let inString = false
  for (let i = 0; i < text.length; i++) {
    const sign = text[i]
    if (inString) {
      if (sign === '\\') i++
      else if (sign === '"') inString = false
    } else if (sign === '"') inString = true
    else if (sign === '{' || sign === '[') {
      if (++depth > MAX_METADATA_DEPTH) return true
    } else if (sign === '}' || sign === ']') depth--
  }
  return false
}

/** Puts null in place of what lies too deep: for the sake of that, no result is to be lost, and nobody who reads of it is to fail. */
export function cutDeep<T extends object>(value: T): T {
  let level: object[] = [value]
  for (let depth = 1; level.length > 0; depth++) {
    const below: object[] = []
    for (const holder of level) {
      for (const [name, inner] of Object.entries(holder)) {
        if (typeof inner !== 'object' || inner === null) continue
        if (depth < MAX_READ_DEPTH) below.push(inner)
        // Not assigned, since a key may be named "__proto__".
        else Object.defineProperty(holder, name, { value: null })
      }
    }
    level = below
  }
  return value
}
