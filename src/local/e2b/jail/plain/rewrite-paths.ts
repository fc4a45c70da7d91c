/** Paths that mean the sandbox's own folders wherever a command names them. */
export const OWN_PATHS = ['/workspace', '/home/user', '/var/tmp', '/tmp']

/**
 * Makes a rewriter of command lines: where a path starts with one of `inside`, the folder on this machine takes its place.
 * It sees text, not meaning; a path that a program puts together itself is not found.
 *
 * @param real the sandbox's root on this machine; paths that already lead into it stay as they are
 * @param mounts paths whose folder lies elsewhere
 */
export function pathRewriter(
  real: string,
  inside: readonly string[],
  mounts: ReadonlyMap<string, string>,
): (text: string) => string {
  const known = [real, ...mounts.values(), ...mounts.keys(), ...inside].sort((a, b) => b.length - a.length)
  // Not in the middle of a word or of another path, and not a longer name that only starts alike.
  const pattern = new RegExp(`(?<![\\w./~-])(?:${known.map(escapePattern).join('|')})(?![\\w-]|\\.\\w)`, 'g')
  const places = new Map([...inside.map((path) => [path, `${real}${path}`] as const), ...mounts])
  return (text) => text.replace(pattern, (path) => places.get(path) ?? path)
}

function escapePattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')
}
