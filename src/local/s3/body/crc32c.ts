// Castagnoli's polynomial, reflected.
const polynomial = 0x82f63b78
const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ polynomial : value >>> 1
  return value
})

/** CRC-32C of the data, continuing from an earlier value, as `zlib.crc32` does for CRC-32. */
export function crc32c(data: Uint8Array, value = 0): number {
  let crc = ~value
  for (let i = 0; i < data.length; i++) crc = (crc >>> 8) ^ (table[(crc ^ (data[i] ?? 0)) & 0xff] ?? 0)
  return ~crc >>> 0
}
