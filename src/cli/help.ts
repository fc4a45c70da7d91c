const GENERAL = `Usage: stu-conductor COMMAND

  run [--task-id ID] [--output PATH]... [--file LOCAL:PATH]... -- COMMAND
                          run a command in a sandbox, keep what it leaves, print its receipt
  tasks                   all tasks, newest first
  results list TASK       what a task left
  results get KEY         one result to stdout, or to a file with -o FILE
  results latest TASK     the same of the newest
  results url KEY         a link that works for an hour (--expires SECONDS)
  results download TASK DIR
                          everything a task left, verified
  results delete TASK|KEY delete results on every tier
  prune                   delete whole tasks that are old
  lifecycle               print S3 rules that do the same
  rehome                  copy into S3 what landed on a lesser tier while S3 was away
  estimate                what results cost in S3
  keys                    make a pair of keys that results are encrypted and read with
  local                   an E2B and an S3 on this machine, for development; prints the variables to set

  COMMAND --help, --version

Settings come from the environment: E2B_API_KEY, E2B_TEMPLATE_ID, WORKER_RESULTS_S3_BUCKET,
WORKER_RESULTS_S3_PREFIX, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL_S3,
WORKER_RESULTS_ENCRYPTION_KEY, WORKER_RESULTS_DECRYPTION_KEY_FILE, …

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted; "run" exits with the command's own status.
`

const RESULTS = `Usage: stu-conductor results ACTION

  list TASK               what a task left: key, bytes, tiers, metadata
  list --tasks GLOB       the same of several tasks
    --limit N             at most so many, the first in the order of their keys
    --unique              each of several with the same bytes once, the oldest
    --json                a JSON object a line
  get KEY [-o FILE]       one result to stdout or a file; a file that broke off is gone on with
  latest TASK [-o FILE]   the same of the newest result; its key goes to stderr
  url KEY                 a link that works without credentials
    --expires SECONDS     how long [3600]
    --filename NAME       what a browser saves it as
    --encrypted           also to an encrypted result, as it is stored
  download TASK DIR       everything, verified, as DIR/TIMESTAMP-NAME; what is there and whole is skipped
  download --tasks GLOB DIR
                          of several tasks, as DIR/TASK/TIMESTAMP-NAME
    --extract             unpack archived folders
    --concurrency N       how many at once [16]
    --json                the report
  delete KEY              one result, on every tier
  delete TASK             all of a task
  delete --tasks GLOB     all of several tasks
    --dry-run             only say what would go
    --yes                 do not ask
    --json                the report

Which results list, latest, download and delete mean; several of these narrow each other:

    --name GLOB           of that name
    --since TIME, --until TIME
                          stored in between, such as 2026-01-14T12:00:00Z
    --metadata KEY=VALUE  with that metadata; VALUE may be JSON; may be repeated
    --tier TIER           that s3, http, volume, sandbox or directory holds

Results that have not left a task's sandbox yet; with an E2B API key, and of one task at a time:

    --sandboxes WHICH     none, running, or paused: those too are read, and resumed for it [running]
    --after-reading WHAT  what becomes of a resumed one: pause, leave, or kill it if all that it holds was read or lies
                          elsewhere [pause]
`

const TASKS = `Usage: stu-conductor tasks [--limit N] [--json]

All tasks, newest first: id, state or outcome, time, results, bytes.
`

const PRUNE = `Usage: stu-conductor prune --older-than-days N

Deletes tasks that were sealed more than N days ago, with everything they left, on every tier.

  --tasks GLOB            only these
  --unsealed              also tasks that never ended properly, whose newest result is as old and that no sandbox lives for
  --dry-run               only say what would go
  --yes                   do not ask
  --json                  the report
`

const LIFECYCLE = `Usage: stu-conductor lifecycle --older-than-days N [--prefix PREFIX]

Prints S3 lifecycle rules by which the bucket itself deletes results after N days. To apply them, which replaces all rules that
the bucket has:

  stu-conductor lifecycle --older-than-days 90 > rules.json
  aws s3api put-bucket-lifecycle-configuration --bucket BUCKET --lifecycle-configuration file://rules.json
`

const REHOME = `Usage: stu-conductor rehome [TASK]... [--json]
       stu-conductor rehome --tasks GLOB [--json]

Copies into S3, checked, what the named tasks, or all, have only on a lesser tier: what was stored while S3 was away. What is
there already stays; doing it again goes on with what failed. Prints the key of each copied result and where it lay.

  --tasks GLOB            of all tasks with such an id
  --json                  the report
`

const ESTIMATE = `Usage: stu-conductor estimate --workers N --bytes-per-worker SIZE

What results cost in dollars by the list prices of S3 Standard; traffic out of AWS is not in it.

  --workers N
  --bytes-per-worker SIZE what each leaves: bytes, or a size such as 10MB
  --months N              how long it is kept [1]
  --results-per-worker N  [1]
  --reads-per-result N    [0]
  --json                  storage, puts, gets and total
`

const KEYS = `Usage: stu-conductor keys new FILE
       stu-conductor keys public FILE

  new FILE                make a pair of keys: the private one goes into FILE, the public one to standard output
  public FILE             the public key of the private one in FILE

Workers of a conductor that has WORKER_RESULTS_ENCRYPTION_KEY, the public key, encrypt what they store. Everything that reads
results takes private keys from the file that WORKER_RESULTS_DECRYPTION_KEY_FILE names, or from WORKER_RESULTS_DECRYPTION_KEY;
after a change of keys there may be several in it, one behind the other.
`

const LOCAL = `Usage: stu-conductor local

Runs an E2B and an S3 on this machine, for development, until it is interrupted; prints the variables to set.
`

const RUN = `Usage: stu-conductor run [OPTION]... -- COMMAND [ARGUMENT]...

Runs a command in a sandbox, keeps what it leaves, prints its receipt to stderr, and exits with the command's own status.
One word is a line for a shell; several are a command and its arguments.

  --task-id ID            letters, digits, ".", "_", "-" [a new one]
  --output PATH           a file or folder in the sandbox that is a result; may be repeated
  --file LOCAL:PATH       a local file to put into the sandbox; may be repeated
  --force                 give up results that cannot be delivered rather than keep the sandbox
`

const texts: Readonly<Record<string, string>> = {
  run: RUN,
  results: RESULTS,
  tasks: TASKS,
  prune: PRUNE,
  lifecycle: LIFECYCLE,
  rehome: REHOME,
  estimate: ESTIMATE,
  keys: KEYS,
  local: LOCAL,
}

/** Whether there is a command of that name. */
export function isCommand(name: string | undefined): name is string {
  return name !== undefined && Object.hasOwn(texts, name)
}

/** What `--help` prints, of one command or of all. */
export function helpOf(command?: string): string {
  return (isCommand(command) ? texts[command] : undefined) ?? GENERAL
}

/** Whether help is asked for; what stands after `--` is somebody else's. */
export function asksForHelp(argv: readonly string[]): boolean {
  const end = argv.indexOf('--')
  return argv.slice(0, end < 0 ? argv.length : end).some((word) => word === '--help' || word === '-h')
}
