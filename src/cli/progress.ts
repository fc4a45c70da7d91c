/** One line on a terminal that is written over and over; nothing where stderr is none. */
export class ProgressLine {
  #shown = false

  show(line: string): void {
    if (!process.stderr.isTTY) return
    this.#shown = true
    process.stderr.write(`\r\u001b[K${line}`)
  }

  /** What comes next begins on a line of its own. */
  end(): void {
    if (this.#shown) process.stderr.write('\n')
    this.#shown = false
  }
}

const units = ['bytes', 'KB', 'MB', 'GB', 'TB'] as const

/** Bytes as people read them: `1.5 MB`, by powers of 1,000. */
export function readableBytes(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000
    unit += 1
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`
}
