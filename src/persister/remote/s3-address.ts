import { type Address, parseAddress } from './address.js'

/** Percent-encodes everything but RFC 3986's unreserved characters, as S3's canonical form wants it. */
export function encodeRfc3986(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`,
  )
}

/** An object key as it stands in a path: slashes stay. */
export function encodeObjectKey(key: string): string {
  return key.split('/').map(encodeRfc3986).join('/')
}

/** Which bucket, and where. */
export interface BucketPlace {
  readonly bucket: string
  readonly region: string
  /** Undefined means AWS itself. */
  readonly endpoint: string | undefined
}

/** A bucket's base address: its own host at AWS, a folder at any other endpoint or where its name has dots (TLS). */
export function bucketAddress({ bucket, region, endpoint }: BucketPlace): Address {
  if (endpoint !== undefined) {
    const base = parseAddress('S3 endpoint', endpoint)
    return { ...base, path: `${base.path.replace(/\/$/, '')}/${encodeRfc3986(bucket)}` }
  }
  const suffix = region.startsWith('cn-') ? 'amazonaws.com.cn' : 'amazonaws.com'
  const host = `s3.${region}.${suffix}`
  const common = { secure: true, port: undefined }
  return /^[a-z0-9-]+$/.test(bucket)
    ? { ...common, hostname: `${bucket}.${host}`, path: '' }
    : { ...common, hostname: host, path: `/${encodeRfc3986(bucket)}` }
}

/** An object's address, with an optional query already encoded. */
export function objectAddress(place: BucketPlace, objectKey: string, query = ''): Address {
  const base = bucketAddress(place)
  return { ...base, path: `${base.path}/${encodeObjectKey(objectKey)}${query === '' ? '' : `?${query}`}` }
}
