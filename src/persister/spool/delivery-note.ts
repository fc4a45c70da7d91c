import { type PreparedFile, prepareFile, replaceFile } from '../../files/durable-file.js'
import type { ResultRecord } from '../../protocol/record.js'
import { recordPath, recordText } from './record-file.js'

/**
 * Notes in a record what became of its result. A crash may undo the note, never the record; the result is then offered again,
 * to the same key, and is found there.
 */
export class DeliveryNote {
  readonly #localDir: string
  #foreseen: { readonly text: string; readonly file: Promise<PreparedFile> } | undefined

  constructor(localDir: string) {
    this.#localDir = localDir
  }

  /** Brings to disk, while the delivery is on its way, what the record will say if all goes well. */
  foresee(record: ResultRecord): void {
    const before = this.discard()
    const text = recordText(record)
    // What is to be sent comes first.
    const idle = new Promise((done) => setImmediate(done))
    const file = idle.then(() => before).then(() => prepareFile(recordPath(this.#localDir, record), text))
    file.catch(() => {})
    this.#foreseen = { text, file }
  }

  /** Replaces the record. */
  async write(record: ResultRecord): Promise<void> {
    const text = recordText(record)
    if (this.#foreseen?.text === text) {
      const { file } = this.#foreseen
      this.#foreseen = undefined
      try {
        ;(await file).put()
        return
      } catch {
        // Whatever was wrong with that file, writing another tells.
      }
    }
    await replaceFile(recordPath(this.#localDir, record), text)
  }

  /** Removes what was foreseen and did not come. */
  async discard(): Promise<void> {
    const foreseen = this.#foreseen
    this.#foreseen = undefined
    try {
      ;(await foreseen?.file)?.discard()
    } catch {
      // It could not be written, or it cannot be removed now; unfinished files are swept up later.
    }
  }
}
