import { createHash } from 'node:crypto'
import { ConductorError } from '../errors.js'
import type { BodyFacts } from '../stores/result-store.js'

/** Watches bytes go by and tells at the end whether they are those that were stored. */
export class DigestCheck {
  readonly #expected: BodyFacts
  readonly #hash = createHash('sha256')
  #size = 0

  /** Throws `INTEGRITY` when there is no digest to check against. */
  constructor(expected: BodyFacts) {
    if (expected.sha256 === undefined) {
      throw new ConductorError(
        'INTEGRITY',
        `${expected.key} cannot be verified: ${expected.problem ?? 'no digest is known'}; read it with verify: false to have it all the same`,
      )
    }
    this.#expected = expected
  }

  /** Takes the next bytes. */
  update(chunk: Uint8Array): void {
    this.#hash.update(chunk)
    this.#size += chunk.length
  }

  /** Throws `INTEGRITY` when bytes are missing that another source may have. */
  assertAllCame(where: string): void {
    if (this.#size < this.#expected.size) throw this.#wrongSize(where)
  }

  /** Throws `INTEGRITY` unless all bytes came and are the right ones. */
  finish(where: string): void {
    const { key, size, sha256 } = this.#expected
    if (this.#size !== size) throw this.#wrongSize(where)
    const actual = this.#hash.digest('hex')
    if (actual !== sha256) {
      throw new ConductorError(
        'INTEGRITY',
        `${key} from ${where} is not what was stored: SHA-256 is ${actual}, must be ${sha256}`,
      )
    }
  }

  #wrongSize(where: string): ConductorError {
    const { key, size } = this.#expected
    const said = `${key} from ${where} has ${this.#size} bytes, ${size} were stored`
    return new ConductorError('INTEGRITY', said)
  }
}

/**
 * Passes chunks on while checking them, and the last one only after the check: whoever consumes this has never seen all the
 * bytes of something that is not what was stored.
 */
export async function* verifiedChunks(
  chunks: AsyncIterable<Uint8Array>,
  check: DigestCheck,
  where: string,
): AsyncGenerator<Uint8Array, void, undefined> {
  let held: Uint8Array | undefined
  for await (const chunk of chunks) {
    check.update(chunk)
    if (held !== undefined) yield held
    held = chunk
  }
  check.finish(where)
  if (held !== undefined) yield held
}
