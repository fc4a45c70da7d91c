import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { readKeyFile } from '../conductor/encryption-options.js'
import { encryptionPublicKey, generateEncryptionKeys } from '../encryption/keys.js'
import { ConductorError } from '../errors.js'
import { ENV } from '../protocol/environment.js'
import { UsageError } from './usage-error.js'

/** `stu-conductor keys …` */
export function runKeys(argv: readonly string[]): number {
  const [action, ...args] = argv
  const { positionals } = parseArgs({ args, allowPositionals: true, options: {} })
  const [file, ...more] = positionals
  if (file === undefined || more.length > 0 || (action !== 'new' && action !== 'public')) {
    throw new UsageError('keys new FILE, or keys public FILE')
  }
  if (action === 'new') return makeKeys(file)
  process.stdout.write(`${encryptionPublicKey(readKeyFile(file, 'keys public'))}\n`)
  return 0
}

function makeKeys(file: string): number {
  const { publicKey, privateKey } = generateEncryptionKeys()
  try {
    // Never over another: with that, all that was encrypted for it would be lost.
    writeFileSync(file, privateKey, { flag: 'wx', mode: 0o600 })
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code
    if (code === 'EEXIST') throw new ConductorError('EXISTS', `${file} is there already`, { cause })
    throw new ConductorError('INVALID_OPTION', `${file} cannot be written: ${code}`, { cause })
  }
  process.stdout.write(`${publicKey}\n`)
  process.stderr.write(
    `The private key is in ${file}: whoever loses it loses what is encrypted for it. To use the pair, set\n` +
      `  ${ENV.encryptionKey} to the line above, and ${ENV.decryptionKeyFile} to the file\n`,
  )
  return 0
}
