/** Of one stream of one command, in UTF-16 units. */
const LIMIT_CHARS = 16 << 20

/** What a command printed, for whoever awaits its end: all of it, and of more than the limit the start and the end. */
export class KeptText {
  readonly #halfChars: number
  #start = ''
  #end = ''
  #leftOutChars = 0

  constructor(limitChars = LIMIT_CHARS) {
    this.#halfChars = Math.floor(limitChars / 2)
  }

  /** With a line where something is missing that says how much. */
  get text(): string {
    const end = this.#end.slice(-this.#halfChars)
    const leftOut = this.#leftOutChars + this.#end.length - end.length
    if (leftOut === 0) return this.#start + end
    return `${this.#start}\n[${leftOut} characters left out]\n${end}`
  }

  add(text: string): void {
    const room = this.#halfChars - this.#start.length
    if (room > 0) this.#start += text.slice(0, room)
    if (text.length <= room) return
    this.#end += text.slice(Math.max(0, room))
    // Not at every piece: what is cut is copied.
    if (this.#end.length <= 2 * this.#halfChars) return
    this.#leftOutChars += this.#end.length - this.#halfChars
    this.#end = this.#end.slice(-this.#halfChars)
  }
}
