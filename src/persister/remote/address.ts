import { ConductorError } from '../../errors.js'

/** Where a request goes, taken apart: `URL` would fold `..` and `%2E` in paths that S3 takes literally. */
export interface Address {
  readonly secure: boolean
  /** Host name without port; IPv6 without brackets. */
  readonly hostname: string
  /** Undefined for the protocol's own. */
  readonly port: number | undefined
  /** Percent-encoded, with its query. */
  readonly path: string
}

/** Value of the `Host` header. */
export function hostOf({ hostname, port }: Address): string {
  const host = hostname.includes(':') ? `[${hostname}]` : hostname
  return port === undefined ? host : `${host}:${port}`
}

/** Takes a URL apart; credentials and fragment are dropped. Throws `INVALID_OPTION` for anything but http and https. */
export function parseAddress(what: string, text: string): Address {
  let url: URL
  try {
    url = new URL(text)
  } catch {
    throw new ConductorError('INVALID_OPTION', `${what} is not a URL`)
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new ConductorError('INVALID_OPTION', `${what} must start with http:// or https://`)
  }
  return {
    secure: url.protocol === 'https:',
    hostname: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? undefined : Number(url.port),
    path: `${url.pathname}${url.search}`,
  }
}
