import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readlinkSync,
  readSync,
  type Stats,
  statSync,
} from 'node:fs'
import { readAt } from '../../files/disk.js'
import { systemCode } from '../../files/system-code.js'
import { mapFsError } from '../fs-error.js'
import { TAR_BLOCK_BYTES, tarHeader, tarPadding } from './tar-header.js'
import { leaveOut, toBytes, toPath, toText, Walk, type WalkEntry } from './walk.js'

/** Handed on at once: each piece costs the compressor a round over another thread. */
const PIECE_BYTES = 512 * 1024
/** A file up to this size lies in one piece, header and all. */
const UNDIVIDED_BYTES = 64 * 1024
/** Headers with three long texts in their extended part stay far below this. */
const MAX_HEADER_BYTES = 32 * 1024
const ONE_PAGE_BYTES = 4096
/** No waiting for a pipe that has taken a file's place, and no link to somewhere else. */
const READ_PLAIN = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK

const END = new Uint8Array(2 * TAR_BLOCK_BYTES)
const NOTHING = new Uint8Array(0)

/**
 * What is not handed on yet. Two buffers take turns, so that one is filled while the other is compressed. They are no `Buffer`s,
 * whose methods check more than they do.
 */
class Piece {
  #buffer = new Uint8Array(PIECE_BYTES)
  #other = new Uint8Array(PIECE_BYTES)
  lengthBytes = 0

  get roomBytes(): number {
    return PIECE_BYTES - this.lengthBytes
  }

  /** Hands over what there is; it stays as it is until {@link take} is called once more. */
  take(): Uint8Array {
    const taken = this.#buffer.subarray(0, this.lengthBytes)
    ;[this.#buffer, this.#other] = [this.#other, this.#buffer]
    this.lengthBytes = 0
    return taken
  }

  put(bytes: Uint8Array): void {
    this.#buffer.set(bytes, this.lengthBytes)
    this.lengthBytes += bytes.length
  }

  /** Adds as many zeros as there is room for. */
  addZeros(sizeBytes: number): number {
    const added = Math.min(sizeBytes, this.roomBytes)
    this.#buffer.fill(0, this.lengthBytes, this.lengthBytes + added)
    this.lengthBytes += added
    return added
  }

  /** Reads from the start of a file, up to a size there is room for, without adding it yet. */
  readInto(descriptor: number, sizeBytes: number): number {
    let done = 0
    while (done < sizeBytes) {
      const read = readSync(descriptor, this.#buffer, this.lengthBytes + done, sizeBytes - done, done)
      done += read
      // A file that is short by the one byte asked for in excess has been read to its end.
      if (read === 0 || done === sizeBytes - 1) break
    }
    return done
  }

  /** Room to be filled by the caller, who then moves `lengthBytes` on. */
  space(sizeBytes: number): Uint8Array {
    return this.#buffer.subarray(this.lengthBytes, Math.min(PIECE_BYTES, this.lengthBytes + sizeBytes))
  }
}

/**
 * A directory as a tar archive, made as it is read. A piece is good until the one after the next is asked for. The same tree
 * always gives the same bytes: entries in byte order, times kept to the second, no owners.
 */
export async function* packTar(
  path: string,
  name: string,
  warn: (line: string) => void,
): AsyncGenerator<Uint8Array> {
  const piece = new Piece()
  const walk = new Walk(toBytes(path), toBytes(name), warn)
  for (let entry = walk.next(); entry !== undefined; entry = walk.next()) {
    if (entry.kind === 'file') {
      const file = openFile(entry, warn)
      if (file === undefined) continue
      if (file.stats.size > UNDIVIDED_BYTES) yield* addInPieces(piece, entry, file, warn)
      else {
        if (piece.roomBytes < MAX_HEADER_BYTES + UNDIVIDED_BYTES + TAR_BLOCK_BYTES) yield piece.take()
        addWhole(piece, entry, file, warn)
      }
      continue
    }
    const header = entry.kind === 'directory' ? directoryHeader(entry, warn) : linkHeader(entry, warn)
    if (header.length > piece.roomBytes) yield piece.take()
    piece.put(header)
  }
  if (END.length > piece.roomBytes) yield piece.take()
  piece.put(END)
  yield piece.take()
}

function permissions({ mode }: Stats): number {
  return mode & 0o7777
}

function seconds({ mtimeMs }: Stats): number {
  return Math.floor(mtimeMs / 1000)
}

function leftOut(entry: WalkEntry, error: unknown, warn: (line: string) => void): void {
  leaveOut(entry, 'left out', error, warn)
}

function directoryHeader(entry: WalkEntry, warn: (line: string) => void): Uint8Array {
  try {
    const stats = statSync(toPath(entry))
    return tarHeader({
      name: `${entry.name}/`,
      isAscii: entry.isAscii,
      kind: 'directory',
      mode: permissions(stats),
      mtimeSeconds: seconds(stats),
      sizeBytes: 0,
    })
  } catch (error) {
    leftOut(entry, error, warn)
    return NOTHING
  }
}

function linkHeader(entry: WalkEntry, warn: (line: string) => void): Uint8Array {
  try {
    const path = toPath(entry)
    const linkTarget = readlinkSync(path, 'latin1')
    const stats = lstatSync(path)
    return tarHeader({
      name: entry.name,
      isAscii: entry.isAscii,
      kind: 'symlink',
      mode: permissions(stats),
      mtimeSeconds: seconds(stats),
      sizeBytes: 0,
      linkTarget,
    })
  } catch (error) {
    // What readlink says of anything that is no link.
    if (systemCode(error) === 'EINVAL') warn(`${toText(entry.name)}: left out (changed)`)
    else leftOut(entry, error, warn)
    return NOTHING
  }
}

interface OpenEntry {
  readonly descriptor: number
  readonly stats: Stats
}

function openFile(entry: WalkEntry, warn: (line: string) => void): OpenEntry | undefined {
  try {
    const descriptor = openSync(toPath(entry), READ_PLAIN)
    const stats = fstatSync(descriptor)
    if (stats.isFile()) return { descriptor, stats }
    closeSync(descriptor)
    warn(`${toText(entry.name)}: left out (changed)`)
  } catch (error) {
    leftOut(entry, error, warn)
  }
  return undefined
}

function fileHeader(entry: WalkEntry, stats: Stats): Uint8Array {
  return tarHeader({
    name: entry.name,
    isAscii: entry.isAscii,
    kind: 'file',
    mode: permissions(stats),
    mtimeSeconds: seconds(stats),
    sizeBytes: stats.size,
  })
}

/** Adds a small file; the piece has room for it. Exactly as many bytes as the header promises, whatever the file does. */
function addWhole(
  piece: Piece,
  entry: WalkEntry,
  { descriptor, stats }: OpenEntry,
  warn: (line: string) => void,
): void {
  const startBytes = piece.lengthBytes
  const { size } = stats
  try {
    piece.put(fileHeader(entry, stats))
    // One byte more shows whether it has grown.
    const read = piece.readInto(descriptor, size + 1)
    // What one read of one page gives is how the file was at that moment; anything longer may have been changed in between.
    const steady = read === size && (size <= ONE_PAGE_BYTES || !hasChanged(descriptor, stats))
    if (!steady) warn(`${toText(entry.name)}: changed while being read`)
    piece.lengthBytes += Math.min(read, size)
    piece.addZeros(size - Math.min(read, size) + tarPadding(size))
  } catch (error) {
    piece.lengthBytes = startBytes
    leftOut(entry, error, warn)
  } finally {
    closeSync(descriptor)
  }
}

function hasChanged(descriptor: number, before: Stats): boolean {
  const after = fstatSync(descriptor)
  return after.mtimeMs !== before.mtimeMs || after.size !== before.size
}

/** Adds a big file: one that shrank is filled up with zeros, one that grew is cut. */
async function* addInPieces(
  piece: Piece,
  entry: WalkEntry,
  { descriptor, stats }: OpenEntry,
  warn: (line: string) => void,
): AsyncGenerator<Uint8Array> {
  try {
    if (piece.roomBytes < MAX_HEADER_BYTES + UNDIVIDED_BYTES) yield piece.take()
    const startBytes = piece.lengthBytes
    piece.put(fileHeader(entry, stats))
    let left = stats.size
    let hasShrunk = false
    while (left > 0 && !hasShrunk) {
      if (piece.roomBytes === 0) yield piece.take()
      try {
        const read = await readAt(descriptor, piece.space(left), stats.size - left)
        hasShrunk = read === 0
        piece.lengthBytes += read
        left -= read
      } catch (error) {
        // Half a file would pass for a whole one.
        if (left < stats.size) throw mapFsError(error, `cannot archive ${toText(entry.name)}`)
        piece.lengthBytes = startBytes
        leftOut(entry, error, warn)
        return
      }
    }
    if (hasShrunk) warn(`${toText(entry.name)}: shrank while being read; the rest is zeros`)
    else if (hasChanged(descriptor, stats)) warn(`${toText(entry.name)}: changed while being read`)
    for (left += tarPadding(stats.size); left > 0; ) {
      if (piece.roomBytes === 0) yield piece.take()
      left -= piece.addZeros(left)
    }
  } finally {
    closeSync(descriptor)
  }
}
