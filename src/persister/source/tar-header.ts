/** Tar's unit: headers and contents fill whole blocks. https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html */
export const TAR_BLOCK_BYTES = 512

/** What an archive says of one entry. */
export interface TarEntry {
  /** Path inside the archive; a directory's ends in a slash. */
  readonly name: string
  readonly kind: 'file' | 'directory' | 'symlink'
  /** Permission bits. */
  readonly mode: number
  readonly mtimeSeconds: number
  /** Of a file's contents, which follow the header. */
  readonly sizeBytes: number
  /** Of a symbolic link: the bytes it holds. */
  readonly linkTarget?: Buffer | undefined
}

const TYPES = { file: '0', directory: '5', symlink: '2', extended: 'x' } as const
const NAME_BYTES = 100
const PREFIX_BYTES = 155
/** Largest number in the eleven octal digits of a field: 8 GiB less one, or the year 2242. */
const LARGEST_OCTAL = 0o77777777777

const SLASH = 0x2f
const ZERO = '00000000000'
const NOTHING = Buffer.alloc(0)

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
export function tarHeader(entry: TarEntry): Buffer {
  const size = octal(entry.sizeBytes)
  const mtime = octal(entry.mtimeSeconds)
  const link = entry.linkTarget ?? NOTHING
  const name = Buffer.from(entry.name)
  const cut = prefixLength(name)
  const plain = plainHeader({
    prefix: cut > 0 ? name.subarray(0, cut) : NOTHING,
    name: cut > 0 ? name.subarray(cut + 1) : name,
    type: TYPES[entry.kind],
    mode: entry.mode,
    size: size ?? ZERO,
    mtime: mtime ?? ZERO,
    link,
  })
  const records: Buffer[] = []
  // Readers without extended headers take the plain fields as bytes, so those are filled in any case.
  if (cut < 0 || name.length !== entry.name.length) records.push(record('path', name))
  if (link.length > NAME_BYTES) records.push(record('linkpath', link))
  if (size === undefined) records.push(record('size', Buffer.from(String(entry.sizeBytes))))
  if (mtime === undefined) records.push(record('mtime', Buffer.from(String(entry.mtimeSeconds))))
  return records.length === 0 ? plain : withExtended(Buffer.concat(records), Buffer.from(plain))
}

/** Bytes that fill a content of a size up to whole blocks. */
export function tarPadding(sizeBytes: number): number {
  return (TAR_BLOCK_BYTES - (sizeBytes % TAR_BLOCK_BYTES)) % TAR_BLOCK_BYTES
}

/** How much of a name goes into the prefix field; negative when name and prefix together cannot hold it. */
function prefixLength(name: Buffer): number {
  if (name.length <= NAME_BYTES) return 0
  // The slash at the cut is implied, and what follows it must not be empty.
  const least = Math.max(1, name.length - 1 - NAME_BYTES)
  for (let cut = Math.min(PREFIX_BYTES, name.length - 2); cut >= least; cut--) {
    if (name[cut] === SLASH) return cut
  }
  return -1
}

/** Eleven digits, or `undefined` for a number that has none such. */
function octal(value: number): string | undefined {
  if (value < 0 || value > LARGEST_OCTAL) return undefined
  return value.toString(8).padStart(11, '0')
}

/** `{length} {keyword}={value}\n`, where the length counts its own digits. */
function record(keyword: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${keyword}=`), value, Buffer.from('\n')])
  let length = rest.length
  while (length !== rest.length + String(length).length) length = rest.length + String(length).length
  return Buffer.concat([Buffer.from(String(length)), rest])
}

function withExtended(records: Buffer, plain: Buffer): Buffer {
  const header = plainHeader({
    prefix: NOTHING,
    name: Buffer.from('PaxHeader'),
    type: TYPES.extended,
    mode: 0o644,
    size: octal(records.length) ?? ZERO,
    mtime: ZERO,
    link: NOTHING,
  })
  return Buffer.concat([header, records, Buffer.alloc(tarPadding(records.length)), plain])
}

interface PlainFields {
  readonly prefix: Buffer
  /** Cut off where the field ends. */
  readonly name: Buffer
  readonly type: string
  readonly mode: number
  readonly size: string
  readonly mtime: string
  readonly link: Buffer
}

const block = Buffer.alloc(TAR_BLOCK_BYTES)

function plainHeader({ prefix, name, type, mode, size, mtime, link }: PlainFields): Buffer {
  TEMPLATE.copy(block)
  let sum = TEMPLATE_SUM
  const put = (bytes: Buffer, at: number, roomBytes: number): void => {
    const end = bytes.copy(block, at, 0, roomBytes)
    for (let i = 0; i < end; i++) sum += bytes[i] ?? 0
  }
  const putAscii = (text: string, at: number): void => {
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i)
      block[at + i] = unit
      sum += unit
    }
  }
  put(name, 0, NAME_BYTES)
  putAscii(mode.toString(8).padStart(7, '0'), 100)
  putAscii(size, 124)
  putAscii(mtime, 136)
  putAscii(type, 156)
  put(link, 157, NAME_BYTES)
  put(prefix, 345, PREFIX_BYTES)
  putAscii(sum.toString(8).padStart(6, '0'), 148)
  return block
}
