/** Reads a stream of buffers by lines and by counts. */
export class ByteReader {
  readonly #source: AsyncIterator<Buffer>
  #rest: Buffer = Buffer.alloc(0)

  constructor(source: AsyncIterable<Buffer>) {
    this.#source = source[Symbol.asyncIterator]()
  }

  /** The next line without its CRLF; undefined when the source ends first or the line is longer than the limit. */
  async line(limitBytes: number): Promise<string | undefined> {
    for (;;) {
      const end = this.#rest.indexOf('\r\n')
      if (end !== -1) {
        const line = this.#rest.toString('latin1', 0, end)
        this.#rest = this.#rest.subarray(end + 2)
        return line
      }
      if (this.#rest.length > limitBytes || !(await this.#more())) return undefined
    }
  }

  /** Yields exactly `count` bytes, or fewer when the source ends first. */
  async *take(count: number): AsyncGenerator<Buffer, void, undefined> {
    let left = count
    while (left > 0) {
      if (this.#rest.length === 0 && !(await this.#more())) return
      const piece = this.#rest.subarray(0, left)
      this.#rest = this.#rest.subarray(piece.length)
      left -= piece.length
      yield piece
    }
  }

  /** Whether nothing is left; reads on to know. */
  async isAtEnd(): Promise<boolean> {
    return this.#rest.length === 0 && !(await this.#more())
  }

  async #more(): Promise<boolean> {
    const next = await this.#source.next()
    if (next.done === true) return false
    this.#rest = this.#rest.length === 0 ? next.value : Buffer.concat([this.#rest, next.value])
    return true
  }
}
