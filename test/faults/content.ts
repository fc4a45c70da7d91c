import { createCipheriv, createHash } from 'node:crypto'

/** Bytes that a label decides and no other label has; the same in the sandbox and for the checker. */
export function knownBytes(label: string, sizeBytes: number): Buffer {
  const key = createHash('sha256').update(label).digest()
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(sizeBytes))
}

/** A file of a directory that is persisted, by its path inside of it. */
export interface KnownFile {
  readonly path: string
  readonly bytes: Buffer
}

/** The files of a directory that a label decides. */
export function knownFiles(label: string, sizeBytes: number): KnownFile[] {
  const count = 1 + (sizeBytes % 7)
  return Array.from({ length: count }, (_, i) => ({
    path: i % 3 === 2 ? `deeper/ünder ${i}.txt` : `file-${i}.bin`,
    bytes: knownBytes(`${label} file ${i}`, Math.floor(sizeBytes / count)),
  }))
}

/** The same from a worker that prints what is no UTF-8. */
export function knownBinaryLine(seed: number, operation: number): Buffer {
  const bytes = knownBytes(`binary line ${seed} ${operation}`, 200)
  return Buffer.concat([Buffer.from(`operation ${operation} `), bytes, Buffer.from('\n')])
}

/** What all of these come to as text. */
export function knownOutput(seed: number, operations: readonly number[], isBinary: boolean): string {
  if (!isBinary) return operations.map((number) => knownLine(seed, number)).join('')
  const bytes = Buffer.concat(operations.map((number) => knownBinaryLine(seed, number)))
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes)
}

/** What a worker prints for one operation, a line with its end; some lines are longer than a pipe holds. */
export function knownLine(seed: number, operation: number): string {
  const digest = createHash('sha256').update(`line ${seed} ${operation}`).digest()
  const filler = (digest[0] ?? 0) < 8 ? 'long Zeile für die Leitung '.repeat(4000) : 'ä'
  return `operation ${operation} ${digest.toString('hex')} ${filler}\n`
}
