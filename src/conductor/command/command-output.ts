import type { CallOptions } from '../../call-options.js'
import { isConductorError } from '../../errors.js'
import { RUN_FILES, type RunPlace, runFolder } from '../../protocol/spool-layout.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { followLogs, LOG_START_BYTES, type LogOffsets } from './follow-log.js'
import { KeptText } from './kept-text.js'
import { OutputStream } from './output-stream.js'

/** Whoever leaves a command waits no longer to learn how far it was heard. */
const SETTLE_MS = 5_000

/** Whose output, and who hears it. */
export interface OutputSpec extends RunPlace {
  /** Whether anybody is given its output with its end; else only `onStdout` and `onStderr` are. */
  readonly keepsOutput: boolean
  readonly onStdout: (text: string) => void
  readonly onStderr: (text: string) => void
}

/** What a command prints, on its way to whoever hears it: over a live connection, or from the logs that its supervisor keeps. */
export class CommandOutput {
  readonly #sandbox: RemoteSandbox
  readonly #place: RunPlace
  readonly #keptStdout = new KeptText()
  readonly #keptStderr = new KeptText()
  readonly #stdout: OutputStream
  readonly #stderr: OutputStream

  /** @param mark what a live connection brings before the command's own output, to its end */
  constructor(sandbox: RemoteSandbox, spec: OutputSpec, from: LogOffsets, mark?: string) {
    const { taskId, runId, localDir, keepsOutput, onStdout, onStderr } = spec
    this.#sandbox = sandbox
    this.#place = { taskId, runId, localDir }
    const both = (keep: KeptText, tell: (text: string) => void) => (text: string) => {
      if (keepsOutput) keep.add(text)
      tell(text)
    }
    this.#stdout = new OutputStream(from.stdout, both(this.#keptStdout, onStdout), mark)
    this.#stderr = new OutputStream(from.stderr, both(this.#keptStderr, onStderr), mark)
  }

  /** Takes what a live connection brings. */
  get listeners(): { readonly onStdout: (text: string) => void; readonly onStderr: (text: string) => void } {
    return { onStdout: this.#stdout.takeText, onStderr: this.#stderr.takeText }
  }

  /** The live connection saw the end of both streams. */
  endText(): void {
    this.#stdout.endText()
    this.#stderr.endText()
  }

  /** What was printed so far, as far as it is kept. */
  get kept(): { readonly stdout: string; readonly stderr: string } {
    return { stdout: this.#keptStdout.text, stderr: this.#keptStderr.text }
  }

  /** Tells from the logs what was not told yet, to the end of the command. */
  async readLogs(options: CallOptions): Promise<void> {
    await this.#settle(options)
    const streams = { stdout: this.#stdout, stderr: this.#stderr }
    await followLogs(this.#sandbox, { ...this.#place, ...streams, ...options })
  }

  /** How far it was told; of a command that was left before its end. Where its sandbox cannot be asked, the least that it can be. */
  async offsets(): Promise<LogOffsets> {
    const limit = AbortSignal.timeout(SETTLE_MS)
    try {
      await this.#settle({ signal: limit })
    } catch (error) {
      if (!isConductorError(error) && !limit.aborted) throw error
      // Told twice is better than never, and whoever leaves a worker may do so because its sandbox is out of reach.
    }
    return { stdout: this.#stdout.offset, stderr: this.#stderr.offset }
  }

  async #settle(options: CallOptions): Promise<void> {
    const folder = runFolder(this.#place)
    for (const [stream, name] of [
      [this.#stdout, RUN_FILES.stdout],
      [this.#stderr, RUN_FILES.stderr],
    ] as const) {
      await stream.settle(() => this.#sandbox.openFile(`${folder}/${name}`, options), LOG_START_BYTES)
    }
  }
}
