/** What `--help` prints. */
export const USAGE = `Usage: persist-result [OPTION]... PATH...
       persist-result --list [TASK] | --retrieve KEY [-o FILE] | --flush
       persist-result run [OPTION]... -- COMMAND [ARG]...
       persist-result drain [OPTION]...

Stores files, directories (as .tar.gz) or standard input (-) as results of a task.
Each goes to the local spool first, then to S3, else to the HTTP endpoint.
Keys go to standard output, everything else to standard error.

  -n, --name NAME          name of the result (default: last part of PATH)
  -m, --metadata JSON      JSON object to keep with it; @FILE reads it from a file
  -t, --task-id ID         task it belongs to (default: $WORKER_ID)
      --content-type TYPE  default: by the ending of the name
      --require WHERE      s3, http or remote: fail unless it got there
      --json               print records, one JSON object a line, instead of keys
  -q, --quiet              no remarks and no progress, only errors

  -l, --list [TASK]        keys of a task's results in the spool
  -r, --retrieve KEY       write a result to standard output
  -o, --output FILE        … or to a file, whole or not at all
      --flush              deliver what is not yet in a remote storage
      --version            print version and implementation
  -h, --help               print this

run    runs a command and keeps its output and exit status, whatever becomes of
       the results; exits with the command's own status.
         --run-id ID         folder name under .worker/TASK/runs (default: generated)
         --output PATH       stored when the command has ended (repeatable)
         --checkpoint PATH   stored during the run when its content changed (repeatable)
         --every DURATION    how often checkpoints are looked at (default: 60s)
         --grace DURATION    after SIGTERM, kill the command when it takes longer
         --log               also store what the command printed
         --log-limit BYTES   of each stream this much is kept, half from its start
                             and half from its end (default: 16777216)
drain  stores the given outputs unless they are stored already, delivers what is
       pending, and prints a report.
         --output PATH       (repeatable)
         --json              the report as one line of JSON
         --seal FENCE        while the conductor's fence of this id stands, refuse
                             results that only the spool would have

Exit status: 0 stored; 1 stored nowhere, or not found; 2 wrong usage;
3 stored, but not where --require says.

Environment: WORKER_ID, WORKER_RESULTS_LOCAL_DIR [/workspace/.results],
WORKER_RESULTS_S3_BUCKET, WORKER_RESULTS_S3_PREFIX [results], AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_DEFAULT_REGION
[us-east-1], AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, WORKER_RESULTS_ENDPOINT,
WORKER_RESULTS_TOKEN, WORKER_RESULTS_GRANT, WORKER_RESULTS_GRANT_FILE,
WORKER_RESULTS_ENCRYPTION_KEY (a public key: what is stored is encrypted for it),
WORKER_RESULTS_STALL_SECONDS [30], WORKER_RESULTS_DEADLINE_SECONDS [120].
`
