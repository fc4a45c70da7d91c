import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { contentSize } from '../../protocol/encryption/sealed-format.js'
import { isSealedType } from '../../protocol/encryption/sealed-type.js'
import type { ResultRecord } from '../../protocol/record.js'

/*
 * Whether an output has changed since it was stored cannot be seen from its encrypted form, which is another each time. So the
 * digests of contents are noted outside the spool, where they live and die with this machine: they decrypt nothing, but who knows
 * one can test guesses at what was stored. A note that is lost costs that an unchanged output is stored once more.
 */

/** Where they lie: by the encrypted form's digest, that of the content. */
function notesFolder(): string {
  return `${tmpdir()}/persist-result-contents-${process.getuid?.() ?? ''}`
}

/** Notes what the content of an encrypted body is. */
export function rememberContent(sealedSha256: string, contentSha256: string): void {
  try {
    mkdirSync(notesFolder(), { recursive: true, mode: 0o700 })
    writeFileSync(`${notesFolder()}/${sealedSha256}`, `${contentSha256}\n`, { mode: 0o600 })
  } catch {
    // Storing does not depend on it.
  }
}

/** Size and digest of what an encrypted result holds; `undefined` where that is not known here, or it is not encrypted. */
export function recallContent(record: ResultRecord): Pick<ResultRecord, 'size' | 'sha256'> | undefined {
  const size = contentSize(record.size)
  if (size === undefined || !isSealedType(record.content_type)) return undefined
  try {
    const sha256 = readFileSync(`${notesFolder()}/${record.sha256}`, 'utf8').trim()
    return { size, sha256 }
  } catch {
    // Stored on another machine, or what was noted is gone.
    return undefined
  }
}
