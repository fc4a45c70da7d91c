import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type HttpReceiver, startHttpReceiver } from '../../support/persister/http-receiver.js'
import { run } from '../../support/persister/program.js'
import { scratch } from '../../support/persister/scratch.js'
import { findProgram, SCRIPT, shells } from './shells.js'

const SECRETS = {
  secretKey: 'SECRETKEYsecretkeySECRETKEY',
  session: 'SESSIONtokenSESSIONtoken',
  bearer: 'BEARERtokenBEARERtoken',
  signature: 'POLICYsignaturePOLICYsignature',
}
const TOOLS = [
  'curl',
  'openssl',
  'sha256sum',
  'awk',
  'od',
  'tr',
  'sed',
  'perl',
  'dd',
  'tee',
  'mv',
  'sync',
  'date',
  'cat',
  'wc',
  'rm',
  'mkdir',
  'base64',
  'find',
  'sort',
  'cut',
  'printf',
  'env',
  'sleep',
  'readlink',
]

/** Puts a wrapper around every tool, which notes its arguments and what lies in files at that moment. */
async function wrapTools(folder: string, without: readonly string[]): Promise<string> {
  const bin = join(folder, 'bin')
  await mkdir(bin)
  const grep = findProgram('grep') ?? 'grep'
  for (const name of TOOLS) {
    const path = findProgram(name)
    if (path === undefined || without.includes(name)) continue
    const words = Object.values(SECRETS)
      .map((secret) => `-e ${secret}`)
      .join(' ')
    await writeFile(
      join(bin, name),
      `#!/bin/sh
for word in ${name} "$@"; do printf '%s\\n' "$word" >>'${folder}/arguments'; done
${grep} -rlF ${words} '${folder}/spool' '${folder}/tmp' >>'${folder}/leaks' 2>/dev/null
exec ${path} "$@"
`,
    )
    await chmod(join(bin, name), 0o755)
  }
  return bin
}

let receiver: HttpReceiver
beforeAll(async () => {
  receiver = await startHttpReceiver()
})
afterAll(async () => {
  await receiver[Symbol.asyncDispose]()
})

describe.each(shells)('secrets in $name', ({ argv }) => {
  const ways = {
    credentials: {
      AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
      AWS_SECRET_ACCESS_KEY: SECRETS.secretKey,
      AWS_SESSION_TOKEN: SECRETS.session,
      WORKER_RESULTS_S3_BUCKET: 'b',
    },
    bearer: { WORKER_RESULTS_TOKEN: SECRETS.bearer },
    grant: {},
  }
  it.each([
    ['credentials', [] as string[]],
    ['credentials', ['perl']],
    ['credentials', ['perl', 'sha256sum']],
    ['bearer', []],
    ['grant', []],
  ] as const)('of %s are in no argument and no file, without %j', async (way, without) => {
    const cleanups: (() => unknown)[] = []
    try {
      const folder = await scratch({ onTestFinished: (fn) => void cleanups.push(fn as () => unknown) })
      await mkdir(join(folder, 'tmp'))
      const PATH = await wrapTools(folder, without)
      const url = receiver.url
      const grant = {
        v: 1,
        task_id: 't',
        expires_at: '2099-01-01T00:00:00.000Z',
        s3: {
          bucket: 'b',
          prefix: 'p',
          region: 'r',
          policy: { url, fields: { key: '', 'x-amz-signature': SECRETS.signature }, max_bytes: 1e9 },
        },
        http: { endpoint: url, token: SECRETS.bearer },
      }
      const env = {
        PATH,
        TMPDIR: join(folder, 'tmp'),
        WORKER_ID: 't',
        WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool'),
        // Nobody listens there, so that trying again is seen as well.
        AWS_ENDPOINT_URL_S3: 'http://127.0.0.1:1',
        WORKER_RESULTS_DEADLINE_SECONDS: '1',
        ...ways[way],
        ...(way === 'bearer' ? { WORKER_RESULTS_ENDPOINT: url } : {}),
        ...(way === 'grant' ? { WORKER_RESULTS_GRANT: JSON.stringify(grant) } : {}),
      }
      const long = JSON.stringify({ a: 'x'.repeat(5000) })
      const result = await run([...argv, SCRIPT, '-', '-n', 'f', '-m', long], { env, input: 'x' })
      expect(result.status).toBe(0)
      const words = await readFile(join(folder, 'arguments'), 'utf8')
      expect(words).toContain('curl\n-q\n')
      for (const secret of Object.values(SECRETS)) {
        expect(words).not.toContain(secret)
        expect(words).not.toContain(Buffer.from(secret).toString('hex'))
        expect(result.stderr + result.stdout).not.toContain(secret)
      }
      expect(await readFile(join(folder, 'leaks'), 'utf8')).toBe('')
      // Nothing of ours is left behind either.
      expect(await readdir(join(folder, 'tmp'))).toEqual([])
      expect((await readdir(join(folder, 'spool/t'))).filter((name) => name.startsWith('.tmp-'))).toEqual([])
    } finally {
      for (const cleanup of cleanups) await cleanup()
    }
  })
})
