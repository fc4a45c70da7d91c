import picomatch from 'picomatch'

/** Compiles a glob as shells read it: `[!a]` is all but `a`, and what is special to nobody but the matcher stands for itself. */
export function globMatcher(glob: string): (text: string) => boolean {
  // Without the first, `[!a]*` is what begins with an "a" or a "!"; without the second, a leading "!" means all the others.
  const matches = picomatch(escapeGroups(glob), { dot: true, posix: true, nonegate: true })
  return (text) => matches(text)
}

/** Parentheses without one of `@?+*!` before them are to a shell no group: `report (1)` is not to mean `report 1`. */
function escapeGroups(glob: string): string {
  const open: boolean[] = []
  return glob.replace(/\\.|([@?+*!]?)\(|\)/gs, (text, prefix: string | undefined) => {
    if (text.startsWith('\\')) return text
    if (text === ')') return open.pop() === true ? text : '\\)'
    open.push(prefix !== '')
    return prefix === '' ? '\\(' : text
  })
}
