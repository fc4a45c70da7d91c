const REPLACEMENT = '\uFFFD'
/** Of what is looked through at once, a byte at a time at most once. */
const LOOK_BYTES = 64 << 10

/**
 * One stream of a command: what of it has come here so far. Text that somebody else decoded tells how many bytes it was only
 * up to the first replacement character: that stands for one byte to three. `settle()` then asks the log.
 */
export class OutputStream {
  /** To here, every byte is accounted for. */
  #exactBytes: number
  /** Told beyond that, in UTF-16 units, and the least number of bytes that it can have been. */
  #unsureChars = 0
  #unsureLeastBytes = 0
  /** A replacement character by itself may be all that the SDK has of a character that a broken connection cut. */
  #held = ''
  /** What comes before the command's own output ends with this; empty once it has come. */
  #mark: string
  #beforeMark = ''
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  readonly #emit: (text: string) => void

  constructor(fromByte: number, emit: (text: string) => void, mark = '') {
    this.#exactBytes = fromByte
    this.#emit = emit
    this.#mark = mark
  }

  /** How far it was read, in bytes from the start of the command's output; the least that it can be before it is settled. */
  get offset(): number {
    return this.#exactBytes + this.#unsureLeastBytes
  }

  /** Takes text that the SDK decoded; up to the mark it is not the command's, see {@link streamMark}. */
  readonly takeText = (text: string): void => {
    const own = this.#afterMark(text)
    if (own === undefined) return
    const isDoubtful = own === REPLACEMENT
    this.#passText(isDoubtful ? this.#held : this.#held + own)
    this.#held = isDoubtful ? own : ''
  }

  /** Bytes of the command's output, from `offset` on. */
  readonly takeBytes = (bytes: Uint8Array): void => {
    this.#exactBytes += bytes.length
    this.#pass(this.#decoder.decode(bytes, { stream: true }))
  }

  /** So many bytes were not kept. */
  readonly takeGap = (bytes: number): void => {
    this.#exactBytes += bytes
    this.#pass(`\n[persist-result: ${bytes} bytes left out]\n`)
  }

  /** The connection over which text came saw the end of the output. */
  endText(): void {
    const held = this.#held
    this.#held = ''
    this.#passText(held)
  }

  /**
   * The connection broke: finds in the log how many bytes the text was.
   *
   * @param openLog the log from its first byte on, asked for only where it is needed
   * @param limitBytes how much of the log is sure to be the command's output without a gap
   */
  async settle(openLog: () => Promise<AsyncIterable<Uint8Array>>, limitBytes: number): Promise<void> {
    // What it stands for is told whole by the log.
    this.#held = ''
    if (this.#unsureChars === 0) return
    const room = Math.max(0, limitBytes - this.#exactBytes)
    const log = room === 0 ? [] : take(await openLog(), this.#exactBytes, room)
    const { bytes, chars, leastBytes } = await findChars(log, this.#unsureChars)
    // Beyond what the log can tell, a replacement character counts as one byte: nothing is left out.
    const rest = chars === this.#unsureChars ? 0 : Math.max(0, this.#unsureLeastBytes - leastBytes)
    this.#exactBytes += bytes + rest
    this.#unsureChars = 0
    this.#unsureLeastBytes = 0
  }

  #afterMark(text: string): string | undefined {
    if (this.#mark === '') return text
    const all = this.#beforeMark + text
    const at = all.indexOf(this.#mark)
    if (at === -1) {
      this.#beforeMark = all.slice(-this.#mark.length)
      return undefined
    }
    const own = all.slice(at + this.#mark.length)
    this.#mark = ''
    return own
  }

  #passText(text: string): void {
    const sure = this.#unsureChars > 0 ? 0 : text.indexOf(REPLACEMENT)
    if (sure === -1) this.#exactBytes += Buffer.byteLength(text)
    else {
      this.#exactBytes += Buffer.byteLength(text.slice(0, sure))
      this.#unsureChars += text.length - sure
      this.#unsureLeastBytes += leastBytesOf(text.slice(sure))
    }
    this.#pass(text)
  }

  #pass(text: string): void {
    if (text !== '') this.#emit(text)
  }
}

/**
 * Printed to each stream before the command's own output. What came before is the word of a login shell, whose files may print;
 * the logs do not have it. It also keeps a byte order mark of the command's from coming first: the SDK's decoder takes that away.
 *
 * @param startId nobody's word before the command was started
 */
export function streamMark(startId: string): string {
  return `\n${startId}\n`
}

function leastBytesOf(text: string): number {
  return Buffer.byteLength(text) - 2 * (text.split(REPLACEMENT).length - 1)
}

/** So many bytes at most, after the first few. */
async function* take(
  log: AsyncIterable<Uint8Array>,
  skipBytes: number,
  maxBytes: number,
): AsyncGenerator<Uint8Array> {
  let toSkip = skipBytes
  let left = maxBytes
  for await (const chunk of log) {
    const part = chunk.subarray(Math.min(toSkip, chunk.length))
    toSkip -= chunk.length - part.length
    for (let at = 0; at < part.length && left > 0; ) {
      const piece = part.subarray(at, at + Math.min(LOOK_BYTES, left))
      yield piece
      at += piece.length
      left -= piece.length
    }
    if (left === 0) return
  }
}

/** How many bytes make so many UTF-16 units of text, decoded as the SDK does; all of them where they are too few. */
async function findChars(
  log: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  wanted: number,
): Promise<{ readonly bytes: number; readonly chars: number; readonly leastBytes: number }> {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  let bytes = 0
  let chars = 0
  let leastBytes = 0
  let begun: Uint8Array = new Uint8Array()
  for await (const piece of log) {
    const text = decoder.decode(piece, { stream: true })
    if (chars + text.length >= wanted) {
      const bytewise = new TextDecoder('utf-8', { ignoreBOM: true })
      bytewise.decode(begun, { stream: true })
      let at = 0
      while (chars < wanted) {
        chars += bytewise.decode(piece.subarray(at, at + 1), { stream: true }).length
        at++
      }
      const open = unfinished(Buffer.concat([begun, piece.subarray(0, at)]))
      return { bytes: bytes + at - open.length, chars, leastBytes }
    }
    bytes += piece.length
    chars += text.length
    leastBytes += leastBytesOf(text)
    begun = unfinished(Buffer.concat([begun, piece.subarray(-3)]))
  }
  return { bytes: bytes - begun.length, chars, leastBytes }
}

/** The bytes at the end that a decoder keeps back: a character that has begun. */
function unfinished(bytes: Uint8Array): Uint8Array {
  for (let length = Math.min(3, bytes.length); length > 0; length--) {
    const end = bytes.subarray(bytes.length - length)
    if (new TextDecoder('utf-8', { ignoreBOM: true }).decode(end, { stream: true }) === '') return end
  }
  return new Uint8Array()
}
