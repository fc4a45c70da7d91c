# ---------------------------------------------------------------- command line

usage() {
  cat <<'END'
Usage: persist-result [OPTION]... PATH...
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
END
}

need_task() {
  task=${asked_task:-${WORKER_ID-}}
  [ -n "$task" ] || misused 'no task id: give --task-id (taskId) or set WORKER_ID'
  if task_id_problem "$task"; then
    problem=$R
    tame "$task"
    misused "task id $problem (got \"$(printf '%.80s' "$R")\")"
  fi
}

quiet='' json='' silent='' require='' asked_name='' has_name='' asked_type='' asked_task='' output='' later='' hushed='' listing='' last_complaint=''
metadata_given=''
dir=${WORKER_RESULTS_LOCAL_DIR:-/workspace/.results}
case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
while :; do case $dir in ?*/) dir=${dir%/} ;; *) break ;; esac; done

case ${1-} in
  run)
    shift
    run "$@"
    exit
    ;;
  drain)
    shift
    drain "$@"
    exit
    ;;
esac

mode=''
# Options are taken off the front and what is not one goes to the back, so that only paths are left at the end.
count=$#
while [ "$count" -gt 0 ]; do
  count=$((count - 1)) word=$1
  shift
  case $word in
    --)
      while [ "$count" -gt 0 ]; do
        word=$1 count=$((count - 1))
        shift
        set -- "$@" "$word"
      done
      ;;
    --name | --metadata | --task-id | --content-type | --require | --retrieve | --output | -[nmtro])
      [ "$count" -gt 0 ] || misused "$word needs a value"
      option=$word value=$1 count=$((count - 1))
      shift
      ;;
    --name=* | --metadata=* | --task-id=* | --content-type=* | --require=* | --retrieve=* | --output=*) option=${word%%=*} value=${word#*=} ;;
    -[nmtro]?*) value=${word#-?} && option=${word%"$value"} ;;
    --json) json=1 && continue ;;
    --quiet | -q) quiet=1 && continue ;;
    --list | -l | --flush | --help | -h | --version)
      case $word in -l) word=--list ;; -h) word=--help ;; esac
      case $mode in
        --help | --version | "$word") ;;
        --list | --retrieve | --flush)
          case $word in --help | --version) mode=$word ;; *) misused '--list, --retrieve and --flush exclude each other' ;; esac
          ;;
        *) mode=$word ;;
      esac
      continue
      ;;
    -?*) misused "unknown option $word" ;;
    *) set -- "$@" "$word" && continue ;;
  esac
  [ "$word" != -- ] || break
  case $option in
    --name | -n) asked_name=$value has_name=1 ;;
    --metadata | -m) metadata_text=$value metadata_given=1 ;;
    --task-id | -t) asked_task=$value ;;
    --content-type) asked_type=$value && check_content_type "$value" ;;
    --require) require=$value ;;
    --output | -o) output=$value output_given=1 ;;
    --retrieve | -r)
      case $mode in --list | --flush) misused '--list, --retrieve and --flush exclude each other' ;; esac
      [ -n "$mode" ] || mode=--retrieve
      wanted=$value
      ;;
  esac
done

case $mode in
  --help) usage && exit ;;
  --version) printf 'persist-result %s (sh)\n' "$VERSION" && exit ;;
esac
case $require in '' | s3 | http | remote) ;; *) misused "--require must be s3, http or remote, not \"$require\"" ;; esac
[ -z "${output_given-}" ] || [ "$mode" = --retrieve ] || misused '--output belongs to --retrieve'
case $mode in
  --list)
    [ $# -le 1 ] || misused '--list takes one task'
    list "${1:-$asked_task}"
    exit
    ;;
  --retrieve)
    [ $# = 0 ] || misused '--retrieve takes one key'
    retrieve "$wanted"
    exit
    ;;
  --flush)
    [ $# = 0 ] || misused '--flush takes no paths'
    need_task
    flush
    exit
    ;;
esac
[ $# -gt 0 ] || misused 'nothing to store: give a path, or - for standard input'
[ -z "$has_name" ] || [ $# = 1 ] || misused '--name goes with one path only'
for word; do [ "$word" != - ] || [ -n "$has_name" ] || misused '- needs --name'; done
if [ -n "$metadata_given" ]; then read_metadata "$metadata_text"; else read_metadata; fi
need_task
store_all "$@"
exit
