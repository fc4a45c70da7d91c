/** User metadata as request headers. */
export function metadataHeaders(values: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [`x-amz-meta-${name}`, value]))
}

/** Hex digest as S3's checksum headers want it. */
export function toBase64(hex: string): string {
  return Buffer.from(hex, 'hex').toString('base64')
}
