import { isConductorError } from '../../errors.js'
import type { DeathCause } from '../../protocol/outcome.js'
import { RUN_FILES, type RunPlace, runFolder } from '../../protocol/spool-layout.js'
import { quote } from '../../sandbox/quote.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { runPlainly } from '../../sandbox/run-plainly.js'
import type { WorkerExit } from '../end/receipt.js'
import { tellKills } from './memory-kills.js'

/** A shell's word for a child that SIGKILL ended, the kernel's signal to who has used too much memory. */
const KILLED_STATUS = 137
/** The examination must not hold up the news of the end. */
const EXAMINATION_MS = 10_000
const MAX_EVIDENCE = 20

/** What an examination came to. */
export interface PostMortem {
  readonly cause: DeathCause
  /** One finding each. */
  readonly evidence: readonly string[]
  readonly lastHeartbeatAt: Date | undefined
}

/** The command that ended. */
export interface Deceased extends RunPlace {
  readonly cwd: string
  /** With which its supervisor ended, where that was seen and no end of the command was recorded. */
  readonly supervisorStatus?: number | undefined
  /** The last of its standard error. */
  readonly stderrTail: string
}

/** Whether an end that was recorded, or the lack of a record, says that something else ended it; a full disk may have as well. */
export function wasKilled({ exitCode, signal }: Pick<WorkerExit, 'exitCode' | 'signal'>): boolean {
  return signal !== null || exitCode === null || exitCode === KILLED_STATUS
}

/** Why a command ended, if not by itself; asks its sandbox only where it cannot be known otherwise. */
export async function examineEnd(
  sandbox: RemoteSandbox,
  exit: WorkerExit,
  deceased: Deceased,
): Promise<PostMortem | undefined> {
  const { outcome, exitCode, signal } = exit
  const { supervisorStatus } = deceased
  const status = signal ?? (exitCode === null ? 'an end that was not recorded' : `status ${exitCode}`)
  if (outcome === 'timed_out') return known('deadline', `stopped at its deadline, with ${status}`)
  if (outcome === 'killed') return known('stopped', `stopped by its conductor, with ${status}`)
  const isKilled = wasKilled(exit)
  const saysFull = exitCode !== 0 && /No space left on device|ENOSPC/.test(deceased.stderrTail)
  if (!isKilled && !saysFull) return undefined
  const { memory, disks, heartbeat } = await look(sandbox, deceased)
  const supervisor =
    supervisorStatus === undefined ? [] : [`its supervisor ended with status ${supervisorStatus}`]
  const evidence = [`ended with ${status}`, ...supervisor, ...memory, ...disks].slice(0, MAX_EVIDENCE)
  const cause = causeOf()
  return { cause, evidence, lastHeartbeatAt: heartbeat }

  function causeOf(): DeathCause {
    // The kernel's memory killer sends SIGKILL and nothing else.
    const watcherMayBe = supervisorStatus === undefined || supervisorStatus === KILLED_STATUS
    const bySigkill = isKilled && watcherMayBe && (signal === null || signal === 'SIGKILL')
    if (!saysFull && bySigkill && memory.some((line) => /oom_kill [1-9]|[Kk]illed process/.test(line)))
      return 'out_of_memory'
    if (saysFull || disks.some((line) => line.includes(' 100%'))) return 'disk_full'
    if (supervisorStatus !== undefined) return 'supervisor_failed'
    return signal === null && exitCode === null ? 'supervisor_killed' : 'signal'
  }
}

function known(cause: DeathCause, finding: string): PostMortem {
  return { cause, evidence: [finding], lastHeartbeatAt: undefined }
}

interface Findings {
  readonly memory: readonly string[]
  readonly disks: readonly string[]
  readonly heartbeat: Date | undefined
}

async function look(sandbox: RemoteSandbox, deceased: Deceased): Promise<Findings> {
  const { localDir, cwd } = deceased
  const run = runFolder(deceased)
  const script = `{ ${tellKills(`${run}/${RUN_FILES.before}`)}
} | sed 's/^/memory /'
df -Pk -- ${quote(cwd)} ${quote(localDir)} 2>/dev/null | sed 1d | cut -c 1-200 | sort -u | sed 's/^/disk /'
echo "heartbeat $(date -r ${quote(`${run}/${RUN_FILES.heartbeat}`)} +%s 2>/dev/null)"`
  let stdout = ''
  try {
    ;({ stdout } = await runPlainly(sandbox, script, { timeoutMs: EXAMINATION_MS }))
  } catch (error) {
    if (!isConductorError(error)) throw error
    // Evidence is welcome and not needed; whoever drains the sandbox learns what is wrong with it.
    return { memory: [], disks: [], heartbeat: undefined }
  }
  const after = (word: string): string[] =>
    stdout
      .split('\n')
      .filter((line) => line.startsWith(`${word} `))
      .map((line) => line.slice(word.length + 1).replace(/\s+/g, ' '))
  const beat = Number(after('heartbeat')[0] || Number.NaN)
  return {
    memory: after('memory'),
    disks: after('disk'),
    heartbeat: Number.isFinite(beat) ? new Date(beat * 1000) : undefined,
  }
}
