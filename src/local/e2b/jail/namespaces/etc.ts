import { copyFile, cp, mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { errnoOf } from '../../request-error.js'

/** What programs need of the machine's own /etc: the loader, certificates, alternatives, names of services. No accounts, no keys. */
const COPIED = [
  'ld.so.cache',
  'ld.so.conf',
  'ld.so.conf.d',
  'alternatives',
  'ssl/certs',
  'ssl/openssl.cnf',
  'ca-certificates.conf',
  'pki/tls/certs',
  'pki/ca-trust/extracted',
  'crypto-policies',
  'localtime',
  'timezone',
  'mime.types',
  'services',
  'protocols',
  'gai.conf',
  'inputrc',
  'terminfo',
  'fonts',
  'perl',
  'python3',
  'python3.11',
  'os-release',
  'debian_version',
]

const OWN: Readonly<Record<string, string>> = {
  passwd: `root:x:0:0:root:/root:/bin/bash
user:x:1000:1000::/home/user:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
`,
  group: 'root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n',
  hosts: '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n',
  'nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n',
  // A login shell reads this one; the machine's own would reset PATH and forget where node and python3 are.
  profile: '[ -n "$PATH" ] || export PATH=/usr/local/bin:/usr/bin:/bin\n',
  'bash.bashrc': '',
}

/** Writes the /etc that all sandboxes share, read-only. */
export async function makeEtc(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true })
  for (const name of COPIED) {
    await mkdir(dirname(join(folder, name)), { recursive: true })
    try {
      await cp(join('/etc', name), join(folder, name), { recursive: true, verbatimSymlinks: true })
    } catch (error) {
      // Every distribution lacks some, and what the server may not read a sandbox must not have.
      if (!['ENOENT', 'EACCES', 'EPERM'].includes(errnoOf(error) ?? '')) throw error
    }
  }
  for (const [name, text] of Object.entries(OWN)) await writeFile(join(folder, name), text)
  await refreshResolver(folder)
}

/** Takes over which name servers the machine asks now: a laptop changes them as it moves. */
export async function refreshResolver(folder: string): Promise<void> {
  try {
    await copyFile('/etc/resolv.conf', join(folder, 'resolv.conf'))
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
  }
}
