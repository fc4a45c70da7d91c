import { DEATH_CERTIFICATE_NAME } from '../../src/protocol/death-certificate.js'
import type { LabReceipt, Outcome } from './messages.js'
import { lifeOf } from './plan.js'

/** What a manifest says of one sandbox. */
interface Attempt {
  readonly attempt: number
  readonly outcome: string
  readonly cause: string | null
  readonly sandbox_id: string
  readonly exit: { readonly code: number | null } | null
  readonly keys: readonly string[]
  readonly undelivered?: readonly { readonly key: string }[]
}

/** What manifests are compared with. */
export interface AttemptEvidence {
  /** By task: the text. */
  readonly manifests: ReadonlyMap<string, string>
  readonly outcomes: readonly Outcome[]
  /** By task: of its last sandbox. */
  readonly receipts: ReadonlyMap<string, LabReceipt>
  /** All keys that were found anywhere. */
  readonly keysThere: ReadonlySet<string>
  /** Lives of whose end two conductors may tell different things. */
  readonly meddled: ReadonlySet<string>
  /** Lives that were ended by force, while their command may have run. */
  readonly forced: ReadonlySet<string>
}

/** Whether manifests tell each sandbox of a task once, with its own end and what it left; one line for each that does not. */
export function checkAttempts({
  manifests,
  outcomes,
  receipts,
  keysThere,
  meddled,
  forced,
}: AttemptEvidence): string[] {
  const problems: string[] = []
  const attempts = new Map<string, Attempt>()
  const owners = new Map<string, string>()
  const givenUp = new Map<string, string>()
  const incomplete = new Set<string>()
  for (const [taskId, text] of manifests) {
    const manifest = JSON.parse(text) as Partial<Attempt> & {
      readonly attempts?: readonly Attempt[]
      readonly complete?: boolean
    }
    if (manifest.complete !== true) incomplete.add(taskId)
    for (const attempt of manifest.attempts ?? []) {
      const life = lifeOf(taskId, attempt.attempt)
      if (attempts.has(life)) problems.push(`manifest of ${taskId} tells attempt ${attempt.attempt} twice`)
      attempts.set(life, attempt)
      const certificates = attempt.keys.filter((key) => key.endsWith(`-${DEATH_CERTIFICATE_NAME}`))
      if (attempt.sandbox_id === '' && certificates.length === attempt.keys.length)
        problems.push(`${life} (${attempt.outcome}, ${attempt.cause}) has no sandbox, and left nothing`)
      if (certificates.length > 1) problems.push(`${life} has ${certificates.length} death certificates`)
      for (const { key } of attempt.undelivered ?? []) givenUp.set(key, life)
      for (const key of attempt.keys) {
        const other = owners.get(key)
        if (other !== undefined) problems.push(`${key} is told of ${other} and of ${life}`)
        owners.set(key, life)
      }
    }
    const last = [...(manifest.attempts ?? [])].sort((a, b) => a.attempt - b.attempt).at(-1)
    if (last !== undefined && last.outcome !== manifest.outcome)
      problems.push(`manifest of ${taskId} says ${manifest.outcome}, its last attempt ${last.outcome}`)
  }
  for (const { taskId, life, via, result } of outcomes) {
    const own = lifeOf(taskId, life)
    if (result === undefined || !keysThere.has(result.key)) continue
    const owner = owners.get(result.key) ?? givenUp.get(result.key)
    // Of a sandbox that nobody could write down a manifest says nothing; nor does it give what that left to another.
    if (owner === own || (owner === undefined && !attempts.has(own))) continue
    // It may have come after the end was written down, which then must not say that there is no more.
    if (owner === undefined && forced.has(own) && incomplete.has(taskId)) continue
    const told = attempts.get(own)
    const tiers = result.stored.map(({ tier }) => tier).join(', ') || 'the spool'
    problems.push(
      `${result.key} (${via}, acknowledged in ${tiers}) was left by ${own} (${told?.outcome}, ${told?.cause}), is told of ${owner ?? 'none'}`,
    )
  }
  for (const [taskId, { life, sealed, outcome, exitCode }] of receipts) {
    if (!sealed || life === undefined) continue
    const attempt = attempts.get(lifeOf(taskId, life))
    if (attempt === undefined) problems.push(`${lifeOf(taskId, life)}: sealed, and in no manifest`)
    else if (meddled.has(lifeOf(taskId, life))) continue
    else if (attempt.outcome !== outcome || (attempt.exit?.code ?? null) !== exitCode) {
      const told = `${attempt.outcome} ${attempt.exit?.code} ${attempt.cause}`
      problems.push(`${lifeOf(taskId, life)}: ${outcome} ${exitCode} on the receipt, ${told} in the manifest`)
    }
  }
  return problems
}
