import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const exec = promisify(execFile)

/** A certificate for `localhost`, and who vouches for it. */
export interface Certified {
  readonly key: string
  readonly cert: string
  /** Path of the authority's own certificate. */
  readonly authority: string
}

/** Makes a private authority and a certificate of it for `localhost`, in a folder of the caller's. */
export async function makeAuthority(folder: string): Promise<Certified> {
  const path = (name: string): string => join(folder, name)
  const openssl = (...args: string[]): Promise<unknown> => exec('openssl', args)
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
  await openssl(
    ...[
      'req',
      '-x509',
      ...ec,
      '-keyout',
      path('ca.key'),
      '-out',
      path('ca.pem'),
      '-subj',
      '/CN=test authority',
    ],
  )
  await openssl('req', ...ec, '-keyout', path('key'), '-out', path('csr'), '-subj', '/CN=localhost')
  await writeFile(path('ext'), 'subjectAltName=DNS:localhost\n')
  await openssl(
    ...[
      'x509',
      '-req',
      '-in',
      path('csr'),
      '-CA',
      path('ca.pem'),
      '-CAkey',
      path('ca.key'),
      '-CAcreateserial',
    ],
    ...['-days', '2', '-extfile', path('ext'), '-out', path('cert')],
  )
  const [key, cert] = await Promise.all(['key', 'cert'].map((name) => readFile(path(name), 'utf8')))
  return { key: key ?? '', cert: cert ?? '', authority: path('ca.pem') }
}
