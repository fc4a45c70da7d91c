import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { crc32c } from './crc32c.js'

/** The checksums S3 takes in `x-amz-checksum-*` headers and this server can compute. */
export const checksumAlgorithms = ['crc32', 'crc32c', 'sha1', 'sha256'] as const

/** One of {@link checksumAlgorithms}. */
export type ChecksumAlgorithm = (typeof checksumAlgorithms)[number]

/** Whatever is computed while a body passes by; MD5 makes the ETag. */
export type DigestAlgorithm = ChecksumAlgorithm | 'md5'

interface Digest {
  update(chunk: Uint8Array): void
  /** May be called once. */
  digest(): Buffer
}

/** Computes several digests of one body in a single pass. */
export class BodyDigests {
  readonly #running = new Map<DigestAlgorithm, Digest>()
  readonly #done = new Map<DigestAlgorithm, Buffer>()

  constructor(algorithms: Iterable<DigestAlgorithm>) {
    for (const algorithm of algorithms) this.#running.set(algorithm, startDigest(algorithm))
  }

  update(chunk: Uint8Array): void {
    for (const digest of this.#running.values()) digest.update(chunk)
  }

  /** The digest of all that passed; nothing may be added afterwards. Throws for an algorithm never asked for. */
  get(algorithm: DigestAlgorithm): Buffer {
    const done = this.#done.get(algorithm)
    if (done !== undefined) return done
    const running = this.#running.get(algorithm)
    if (running === undefined) throw new Error(`${algorithm} was not computed`)
    const value = running.digest()
    this.#done.set(algorithm, value)
    return value
  }
}

/** The digest of bytes at hand. */
export function digestOf(algorithm: DigestAlgorithm, data: Uint8Array): Buffer {
  const digest = startDigest(algorithm)
  digest.update(data)
  return digest.digest()
}

function startDigest(algorithm: DigestAlgorithm): Digest {
  if (algorithm === 'crc32') return new Crc((data, value) => crc32(data, value))
  if (algorithm === 'crc32c') return new Crc(crc32c)
  return createHash(algorithm)
}

class Crc implements Digest {
  #value = 0
  readonly #compute: (data: Uint8Array, value: number) => number

  constructor(compute: (data: Uint8Array, value: number) => number) {
    this.#compute = compute
  }

  update(chunk: Uint8Array): void {
    this.#value = this.#compute(chunk, this.#value)
  }

  digest(): Buffer {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32BE(this.#value)
    return bytes
  }
}
