import { isUtf8 } from 'node:buffer'

/** Tar's unit: headers and contents fill whole blocks. https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html */
export const TAR_BLOCK_BYTES = 512

/** What an archive says of one entry. */
export interface TarEntry {
  /** Path inside the archive, one character for each byte; a directory's ends in a slash. */
  readonly name: string
  /** Whether the name is ASCII. */
  readonly isAscii: boolean
  readonly kind: 'file' | 'directory' | 'symlink'
  /** Permission bits. */
  readonly mode: number
  readonly mtimeSeconds: number
  /** Of a file's contents, which follow the header. */
  readonly sizeBytes: number
  /** Of a symbolic link: the bytes it holds, one in each character. */
  readonly linkTarget?: string | undefined
}

const TYPES = { file: '0', directory: '5', symlink: '2', extended: 'x' } as const
const NAME_BYTES = 100
const PREFIX_BYTES = 155
/** Largest number in the eleven octal digits of a field: 8 GiB less one, or the year 2242. */
const LARGEST_OCTAL = 0o77777777777

// Nobody's ids and no device: the same tree gives the same bytes wherever it is packed.
const TEMPLATE = Buffer.alloc(TAR_BLOCK_BYTES)
TEMPLATE.write('0000000\x000000000\x00', 108, 'latin1')
TEMPLATE.write('ustar\x0000', 257, 'latin1')
TEMPLATE.write('0000000\x000000000\x00', 329, 'latin1')
/** Sum of its bytes, those of the checksum's own field counted as blanks. */
const TEMPLATE_SUM = TEMPLATE.reduce((sum, byte) => sum + byte, 8 * 0x20)
TEMPLATE.write('000000\x00 ', 148, 'latin1')

/**
 * Header of an entry, preceded by an extended one where the plain form cannot say it all; whole blocks. What it gives is good
 * until it is called again.
 */
export function tarHeader(entry: TarEntry): Uint8Array {
  const { name, isAscii, sizeBytes, mtimeSeconds, linkTarget = '' } = entry
  const cut = prefixLength(name)
  const plain = plainHeader(cut, TYPES[entry.kind], entry)
  if (isAscii && cut >= 0 && linkTarget.length <= NAME_BYTES && fits(sizeBytes) && fits(mtimeSeconds)) {
    return plain
  }
  const texts: Buffer[] = []
  const numbers: Buffer[] = []
  const nameBytes = Buffer.from(name, 'latin1')
  // Readers without extended headers take the plain fields as bytes, so those are filled in any case. They suffice for a short
  // name that is no UTF-8 either, which everybody takes as bytes then.
  if (cut < 0 || (!isAscii && isUtf8(nameBytes))) texts.push(record('path', nameBytes))
  if (linkTarget.length > NAME_BYTES) texts.push(record('linkpath', Buffer.from(linkTarget, 'latin1')))
  if (!fits(sizeBytes)) numbers.push(record('size', Buffer.from(String(sizeBytes))))
  if (!fits(mtimeSeconds)) numbers.push(record('mtime', Buffer.from(String(mtimeSeconds))))
  if (!texts.every(isUtf8)) texts.unshift(record('hdrcharset', Buffer.from('BINARY')))
  const records = [...texts, ...numbers]
  return records.length === 0 ? plain : withExtended(Buffer.concat(records), Buffer.from(plain))
}

/** Bytes that fill a content of a size up to whole blocks. */
export function tarPadding(sizeBytes: number): number {
  return (TAR_BLOCK_BYTES - (sizeBytes % TAR_BLOCK_BYTES)) % TAR_BLOCK_BYTES
}

/** How much of a name goes into the prefix field; negative when name and prefix together cannot hold it. */
function prefixLength(name: string): number {
  if (name.length <= NAME_BYTES) return 0
  // The slash at the cut is implied, and what follows it must not be empty.
  const least = Math.max(1, name.length - 1 - NAME_BYTES)
  for (let cut = Math.min(PREFIX_BYTES, name.length - 2); cut >= least; cut--) {
    if (name[cut] === '/') return cut
  }
  return -1
}

/** Whether a field of eleven octal digits can hold a number. */
function fits(value: number): boolean {
  return value >= 0 && value <= LARGEST_OCTAL
}

/** `{length} {keyword}={value}\n`, where the length counts its own digits. */
function record(keyword: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${keyword}=`), value, Buffer.from('\n')])
  let length = rest.length
  while (length !== rest.length + String(length).length) length = rest.length + String(length).length
  return Buffer.concat([Buffer.from(String(length)), rest])
}

function withExtended(records: Uint8Array, plain: Uint8Array): Uint8Array {
  const header = plainHeader(0, TYPES.extended, {
    name: 'PaxHeader',
    mode: 0o644,
    sizeBytes: records.length,
    mtimeSeconds: 0,
  })
  return Buffer.concat([header, records, Buffer.alloc(tarPadding(records.length)), plain])
}

const block = new Uint8Array(TAR_BLOCK_BYTES)

/** Fills the block; what has no room in its field is cut off, and a number that does not fit is zero. */
function plainHeader(cut: number, type: string, entry: Omit<TarEntry, 'kind' | 'isAscii'>): Uint8Array {
  const { name, mode, sizeBytes, mtimeSeconds, linkTarget = '' } = entry
  block.set(TEMPLATE)
  let sum = TEMPLATE_SUM + type.charCodeAt(0)
  block[156] = type.charCodeAt(0)
  sum +=
    cut > 0
      ? putText(name, cut + 1, 0, NAME_BYTES) + putText(name, 0, 345, cut)
      : putText(name, 0, 0, NAME_BYTES)
  sum += putOctal(mode, 100, 7)
  sum += putOctal(fits(sizeBytes) ? sizeBytes : 0, 124, 11)
  sum += putOctal(fits(mtimeSeconds) ? mtimeSeconds : 0, 136, 11)
  sum += putText(linkTarget, 0, 157, NAME_BYTES)
  putOctal(sum, 148, 6)
  return block
}

/** Writes a text's bytes from a place of it on, as far as there is room; gives their sum. */
function putText(bytes: string, from: number, at: number, roomBytes: number): number {
  const length = Math.min(bytes.length - from, roomBytes)
  let sum = 0
  for (let i = 0; i < length; i++) {
    const byte = bytes.charCodeAt(from + i)
    block[at + i] = byte
    sum += byte
  }
  return sum
}

/** Writes a number with leading zeros; gives the sum of its digits' bytes. */
function putOctal(value: number, at: number, digits: number): number {
  let sum = 0
  // Ten digits are thirty bits, which machine integers hold: with doubles this takes several times as long.
  let left = (value % 2 ** 30) | 0
  for (let i = digits - 1; i >= 0; i--) {
    if (digits - 1 - i === 10) left = (value / 2 ** 30) | 0
    const byte = 0x30 + (left & 7)
    block[at + i] = byte
    sum += byte
    left >>= 3
  }
  return sum
}
