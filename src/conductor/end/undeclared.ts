import { z } from 'zod'
import type { CallOptions } from '../../call-options.js'
import { isConductorError } from '../../errors.js'
import { WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'
import type { UndeclaredRecord, WorkerRecord } from '../../protocol/worker-record.js'
import { quote } from '../../sandbox/quote.js'
import type { CommandOutcome, RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { runBounded } from '../../sandbox/run-bounded.js'
import { oneAtATime } from './drain-script.js'
import { replaceTools, toolsAreFit, toolsFolder } from './tools.js'

/** Which files count that a worker made or changed and nobody persisted. */
export interface UndeclaredOptions {
  /** Folders to look in. @default ['/workspace'] */
  readonly roots?: readonly string[] | undefined
  /** Of all files together, in bytes; what comes after is left out, and counted. @default 268,435,456 */
  readonly maxBytes?: number | undefined
  /** @default 10,000 */
  readonly maxFiles?: number | undefined
  /** File and folder names to leave out besides caches and what usually holds secrets; `*` and `?` are wildcards. */
  readonly exclude?: readonly string[] | undefined
}

/** Whose files. */
export interface UndeclaredSpec {
  readonly record: WorkerRecord
  readonly localDir: string
  /** Whether its sandbox goes in any case, and soon. */
  readonly force: boolean
}

/** The script says nothing while it works; archives of this size take far less. */
const LIMIT_MS = 1_800_000
const FORCED_LIMIT_MS = 30_000
const MAX_PRINTED_BYTES = 1 << 20
/** Of a script whose program is not what it was; no shell gives it for a signal. */
const UNFIT_STATUS = 198

/** Name of the archive that they are stored as. */
export const UNDECLARED_NAME = 'undeclared-outputs.tar.gz'

/** Left out wherever they are: what usually holds secrets, and what is made again at will. */
const EXCLUDED = [
  ...['.env', '.env.*', '*.env', '*.pem', '*.key', '*.p12', '*.pfx', '*.kdbx', '*.jks', 'id_rsa*', 'id_dsa*'],
  ...['id_ecdsa*', 'id_ed25519*', '*credential*', '*secret*', '*password*', '.netrc', '.npmrc', '.pypirc'],
  ...['.aws', '.azure', '.ssh', '.gnupg', '.docker', '.kube', 'gcloud', '.git', '.*_history'],
  ...['node_modules', '__pycache__', '.venv', '.cache'],
]

const name = z
  .string()
  .min(1)
  .regex(/^[^/\0\n]*$/, 'must be a name or pattern without slashes')

/** Checks {@link UndeclaredOptions}. Declared along with what is made from it, which names its type. */
export const undeclaredSchema = z.strictObject({
  roots: z
    .array(z.string().regex(/^\/[^\0\n]*$/, 'must be an absolute path'))
    .min(1)
    .default(['/workspace']),
  maxBytes: z
    .number()
    .int()
    .positive()
    .default(256 * 1024 ** 2),
  maxFiles: z.number().int().positive().max(1_000_000).default(10_000),
  exclude: z.array(name).default([]),
})

/** As the worker's record keeps it. */
export function toUndeclaredRecord(options: z.output<typeof undeclaredSchema>): UndeclaredRecord {
  const { roots, maxBytes, maxFiles, exclude } = options
  return { roots, max_bytes: maxBytes, max_files: maxFiles, exclude }
}

/**
 * Has the sandbox store, as one archive, what was changed in it since the worker began and lies in no result yet. Resolves with
 * why that failed, or undefined: a worker's end does not depend on it.
 */
export async function keepUndeclared(
  sandbox: RemoteSandbox,
  { record, localDir, force }: UndeclaredSpec,
  { signal }: CallOptions = {},
): Promise<string | undefined> {
  const wanted = record.undeclared
  if (wanted === null) return undefined
  const spec = { taskId: record.task_id, localDir }
  const bounds = { maxBytes: MAX_PRINTED_BYTES, quietMs: force ? FORCED_LIMIT_MS : LIMIT_MS }
  const run = (tools: string): Promise<CommandOutcome> =>
    // Login files and all: they may say where Node and the persister's temporary folder are.
    runBounded(sandbox, script(record, wanted, localDir, tools), bounds, { cwd: '/', signal })
  try {
    let outcome = await run(toolsFolder(spec))
    if (outcome.exitCode === UNFIT_STATUS) outcome = await run(await replaceTools(sandbox, spec, { signal }))
    const { exitCode, stderr } = outcome
    return exitCode === 0 ? undefined : stderr.trim().slice(-500) || `status ${exitCode}`
  } catch (error) {
    signal?.throwIfAborted()
    if (!isConductorError(error) || error.code === 'SANDBOX_GONE' || error.code === 'SANDBOX_PAUSED')
      throw error
    // Out of reach for a moment is no reason to give them up.
    if (error.code === 'UNAVAILABLE' && error.retryable && !force) throw error
    return error.message
  }
}

function script(record: WorkerRecord, wanted: UndeclaredRecord, localDir: string, tools: string): string {
  const { task_id: taskId, cwd, outputs } = record
  const folder = workerFolder(localDir, taskId)
  const declared = outputs.map((path) => (path.startsWith('/') ? path : `${cwd}/${path}`))
  const left = [localDir, ...declared].flatMap((path) => [
    '-path',
    quote(escapeGlob(path.replace(/\/+$/, ''))),
    '-o',
  ])
  const named = [...EXCLUDED, ...wanted.exclude].flatMap((pattern) => ['-name', quote(pattern), '-o'])
  // Sizes first, so that no more is read than will be kept; then digests, to leave out what is a result already. Once that is
  // kept only what changes later counts, since a worker's end may have to be tried again.
  const spec = { taskId, localDir }
  const check = tools === toolsFolder(spec) ? `{ ${toolsAreFit(spec)}; } || exit ${UNFIT_STATUS}` : ''
  return `set -u
${check}
${oneAtATime(`${folder}/${WORKER_FILES.draining}`)}
t=$(mktemp -d) || exit 1
trap 'rm -rf -- "$t"' EXIT
: >"$t/now"
find ${wanted.roots.map(quote).join(' ')} -xdev \\( ${left.join(' ')} ${named.join(' ')} -name '*
*' \\) -prune -o -type f -newer ${quote(`${folder}/${WORKER_FILES.born}`)} -exec stat -c '%s %n' {} + 2>/dev/null |
  awk -v bytes=${wanted.max_bytes} -v files=${wanted.max_files} -v skipped="$t/skipped" '
    { path = substr($0, length($1) + 2)
      if (n < files && sum + $1 <= bytes) { n++; sum += $1; print path } else left++ }
    END { print left + 0 >skipped }' >"$t/changed" || exit
[ -s "$t/changed" ] || exit 0
cat -- ${quote(`${localDir}/${taskId}`)}/*.meta.json 2>/dev/null | grep -o '"sha256":"[0-9a-f]*"' | cut -d'"' -f4 >"$t/known"
find "\${TMPDIR:-/tmp}/persist-result-contents-$(id -u)" -type f -exec cat -- {} + 2>/dev/null >>"$t/known"
tr '\\n' '\\0' <"$t/changed" | xargs -0 sha256sum -- 2>/dev/null |
  awk -v file="$t/known" 'BEGIN { while ((getline line <file) > 0) known[line] }
    length($1) == 64 && !($1 in known) { print substr($0, 68) }' |
  sed 's|^/*||' >"$t/new" || exit
[ -s "$t/new" ] || exit 0
n=$(wc -l <"$t/new")
# A file that is gone by now is no harm; an archive that was cut is.
tar -C / -czf "$t/archive" -T "$t/new" 2>"$t/warnings" ||
  { gzip -t "$t/archive" && tar -tzf "$t/archive" >/dev/null; } 2>>"$t/warnings" ||
  { cat -- "$t/warnings" >&2; exit 1; }
sh ${quote(`${tools}/persist-result`)} --quiet --task-id ${quote(taskId)} --name ${UNDECLARED_NAME} \\
  --metadata "{\\"undeclared\\":true,\\"files\\":$((n)),\\"left_out\\":$(cat "$t/skipped")}" - <"$t/archive" >/dev/null || exit
touch -r "$t/now" -- ${quote(`${folder}/${WORKER_FILES.born}`)}`
}

/** `find -path` takes patterns. */
function escapeGlob(path: string): string {
  return path.replace(/[*?[\]\\]/g, (sign) => `\\${sign}`)
}
