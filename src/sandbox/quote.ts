/** Quotes a word for a POSIX shell; whatever it holds, the shell passes it on unchanged. */
export function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`
}
