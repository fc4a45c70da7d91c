import { createHash } from 'node:crypto'
import { ConductorError } from '../../errors.js'
import { readAt, withOpen } from '../../files/disk.js'

const READ_BYTES = 1 << 20

/** SHA-256 of a range of a file (end exclusive), in hex. */
export async function digestRange(range: {
  readonly path: string
  readonly start: number
  readonly end: number
}): Promise<string> {
  const { path, start, end } = range
  const hash = createHash('sha256')
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES)
  await withOpen(path, async (file) => {
    for (let position = start; position < end; ) {
      const bytesRead = await readAt(file, buffer.subarray(0, Math.min(READ_BYTES, end - position)), position)
      if (bytesRead === 0) throw new ConductorError('INTEGRITY', `${path} is shorter than its record says`)
      hash.update(buffer.subarray(0, bytesRead))
      position += bytesRead
    }
  })
  return hash.digest('hex')
}
