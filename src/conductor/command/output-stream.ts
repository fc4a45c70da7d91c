/** One stream of a command: what of it has come here so far. */
export class OutputStream {
  #text = ''
  #bytes: number
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  readonly #emit: (text: string) => void

  constructor(fromByte: number, emit: (text: string) => void) {
    this.#bytes = fromByte
    this.#emit = emit
  }

  /** All that came, decoded. */
  get text(): string {
    return this.#text
  }

  /** How far it was read, in bytes from the start of the command's output. */
  get offset(): number {
    return this.#bytes
  }

  /** Takes text that somebody else decoded. */
  readonly takeText = (text: string): void => {
    this.#bytes += Buffer.byteLength(text)
    this.#pass(text)
  }

  readonly takeBytes = (bytes: Uint8Array): void => {
    this.#bytes += bytes.length
    this.#pass(this.#decoder.decode(bytes, { stream: true }))
  }

  #pass(text: string): void {
    if (text === '') return
    this.#text += text
    this.#emit(text)
  }
}
