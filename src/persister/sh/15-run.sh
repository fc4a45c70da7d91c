# ---------------------------------------------------------------- run

# Puts a duration such as 500ms, 60s, 5m or 1h into R, in seconds for sleep.
duration() {
  R=${1%%[!0123456789.]*}
  case $R in '' | *.*.* | .* | *.) return 1 ;; esac
  case ${1#"$R"} in
    '' | s) ;;
    ms) case $R in *.*) return 1 ;; *) fraction=$((1000 + R % 1000)) R=$((R / 1000)).${fraction#1} ;; esac ;;
    m) case $R in *.*) return 1 ;; *) R=$((R * 60)) ;; esac ;;
    h) case $R in *.*) return 1 ;; *) R=$((R * 3600)) ;; esac ;;
    *) return 1 ;;
  esac
}

# Keeps the start and the end of standard input in file $1; FIFO $2 brings the same once more, for counting.
keep_log() {
  # Room for what is to be said of a disk that is full to the end.
  { printf '%1024s' '' >"$1.room"; } 2>/dev/null
  exec 4<&0
  keep_ends "$1" <&4 4<&- &
  # Nobody else may hold the stream open: whoever writes it would wait for ever for a reader that is none.
  exec 4<&- </dev/null
  total=$(($(wc -c <"$2")))
  wait $!
  join_ends "$1"
}

# Puts the start of standard input into file $1, and the end into the one beside it. What the disk does not take of the start is
# missing there, and what comes then counts as the end, which is in memory until there is no more.
keep_ends() {
  half=$((log_limit / 2)) here=0
  true >"$1"
  # head may read more than it writes; dd does not, and passes on at once what comes. It takes a block that comes in small for
  # whole, so it is to be called again for what is left, at last byte by byte.
  while [ $here -lt $half ]; do
    block=$(((half - here) / 4096))
    if [ $block -lt 1 ]; then block=1; elif [ $block -gt 65536 ]; then block=65536; fi
    count=$(((half - here) / block))
    said=$(dd bs=$block count=$count 2>&1 >>"$1") || break
    said=${said%% *} whole=${said%+*} short=${said#*+}
    case $whole:$short in "$count:0") here=$((here + count * block)) && continue ;; esac
    # Fewer blocks than it was to take: that was the end.
    is_number "$whole" && is_number "$short" && [ $((whole + short)) -ge $count ] || break
    here=$(($(wc -c <"$1")))
  done
  # A part of it is not the end; then there is none.
  tail -c $half >"$1.tail" || true >"$1.tail"
}

# Completes log $1, of which there were $total bytes, and says in it how many are missing.
join_ends() {
  start=$(($(wc -c <"$1"))) kept=$(($(wc -c <"$1.tail")))
  missing=$((total - start - kept)) said=''
  rm -f -- "$1.room"
  [ $missing -le 0 ] || said="$NL[persist-result: $missing bytes left out]$NL"
  { printf '%s' "$said" && cat -- "$1.tail"; } >>"$1"
  joined=$?
  # Its room is what is lacking if any is.
  rm -f -- "$1.tail"
  [ $joined != 0 ] || return 0
  have=$(($(wc -c <"$1") - start))
  if [ $have -lt ${#said} ]; then
    # A remark that was begun tells nothing.
    printf '%s' "$said" | tail -c +$((have + 1)) >>"$1"
    have=${#said}
  fi
  missing=$((${#said} + kept - have))
  [ $missing = 0 ] || printf '\n[persist-result: %s bytes could not be written]\n' $missing >>"$1"
}

# Passes a stream of the command through and keeps it: $1 is out or err, $2 the log. Leaves the process ids in tee_pid and log_pid.
watch_stream() {
  mkfifo "$scratch/$1" "$scratch/$1.log" "$scratch/$1.count" || return 1
  (
    trap - EXIT
    trap '' HUP INT QUIT TERM USR1 USR2
    keep_log "$2" "$scratch/$1.count" <"$scratch/$1.log"
  ) >/dev/null 2>&1 &
  log_pid=$!
  (
    # A reader that went away must not take the command with it.
    trap - EXIT
    trap '' HUP INT QUIT TERM USR1 USR2 PIPE
    # Those who keep the log have a writer before the command can begin, and its end with him.
    exec 5>"$scratch/$1.log" 6>"$scratch/$1.count"
    exec tee "$scratch/$1.log" "$scratch/$1.count" <"$scratch/$1" 2>/dev/null
  ) &
  tee_pid=$!
}

pass_on() {
  interrupted=1
  [ -n "$child" ] || return 0
  set -- "$1" "$1"
  # A command that had to be started deaf to these two would never end by them.
  [ -z "$deaf" ] || case $1 in INT | QUIT) set -- "$1" TERM ;; esac
  # Its group is there as soon as it is the command.
  kill "-$2" "$child_group$child" 2>/dev/null || kill "-$2" "$child" 2>/dev/null || :
  case $1.$grace.$killer in
    TERM.?*.)
      (
        trap - EXIT HUP INT QUIT TERM
        sleep "$grace" && kill -KILL "$child_group$child"
      ) </dev/null >/dev/null 2>&1 &
      killer=$!
      ;;
  esac
}

# Stores what a command leaves behind, if it changed; complains about what is missing when $1 says so, then the things.
keep() {
  mentions=$1
  shift
  note_listing
  for thing; do
    asked_name='' has_name=''
    case $thing in "$named") asked_name=$run_name has_name=1 ;; esac
    store_output "$thing"
    case $outcome in
      failed) remark "$thing is not stored: $outcome_error" ;;
      missing) [ -z "$mentions" ] || remark "$thing is not stored: it does not exist" ;;
    esac
  done
  listing='' spooled=1 folder=$dir/$task
  catch_up
}

# Looks at the checkpoints now and then until it is told to stop; it then ends with the round that has begun.
checkpoint() {
  trap - EXIT HUP INT QUIT TERM
  unique=${unique}c
  while [ ! -e "$scratch/stop" ] && kill -0 $$ 2>/dev/null; do
    sleep "$every" &
    printf '%s' $! >"$scratch/sleeper"
    wait $!
    [ -e "$scratch/stop" ] || (keep '' "$@")
  done
}

run() {
  asked_task='' run_id='' outputs=0 checkpoints=0 every=60 log='' log_limit=16777216 grace='' killer='' run_name='' named="$NL"
  need_scratch || { reason && die 1 "cannot write ${TMPDIR:-/tmp}$R"; }
  while [ $# -gt 0 ]; do
    case $1 in
      --) shift && break ;;
      --log) log=1 && shift && continue ;;
      --*=*) option=${1%%=*} value=${1#*=} && shift ;;
      -o | -t | -n | --output | --checkpoint | --run-id | --task-id | --name | --every | --log-limit | --grace)
        [ $# -gt 1 ] || misused "$1 needs a value"
        option=$1 value=$2
        shift 2
        ;;
      *) misused "run does not know $1" ;;
    esac
    case $option in
      -o | --output) outputs=$((outputs + 1)) && eval "output_$outputs=\$value" ;;
      --checkpoint) checkpoints=$((checkpoints + 1)) && eval "checkpoint_$checkpoints=\$value" ;;
      --run-id) run_id=$value ;;
      -t | --task-id) asked_task=$value ;;
      -n | --name) run_name=$value ;;
      --every) duration "$value" || misused "--every must be a duration such as 60s, not \"$value\"" && every=$R ;;
      --grace) duration "$value" || misused "--grace must be a duration such as 10s, not \"$value\"" && grace=$R ;;
      --log-limit)
        case $value in '' | *[!0123456789]* | ????????????????*) misused '--log-limit must be a number of bytes' ;; esac
        log_limit=$value
        [ "$log_limit" -ge 2 ] || misused '--log-limit must be a number of bytes'
        ;;
      *) misused "run does not know $option" ;;
    esac
  done
  [ $# -gt 0 ] || misused 'run needs a command after --'
  [ -z "$run_name" ] || [ $outputs = 1 ] || misused '--name goes with one --output'
  # shellcheck disable=SC2154
  [ -z "$run_name" ] || named=$output_1
  need_task
  now
  [ -n "$run_id" ] || run_id=$now_stamp-${unique%"${unique#??????}"}
  describe_name "$run_id"
  [ -z "$n_problem" ] || misused "--run-id $n_problem"
  run_json=$n_json
  run_dir=$dir/.worker/$task/runs/$run_id
  keep_grant
  tees='' logs=''
  if make_folder "$run_dir" && { printf '' >"$run_dir/heartbeat"; } 2>/dev/null; then
    take_exit_room
    watch_stream out "$run_dir/stdout.log"
    tees=$tee_pid logs=$log_pid
    watch_stream err "$run_dir/stderr.log" >&2
    tees="$tees $tee_pid" logs="$logs $log_pid"
    (
      trap - EXIT HUP INT QUIT TERM
      while sleep 5 && kill -0 $$; do touch -- "$run_dir/heartbeat"; done
    ) </dev/null >/dev/null 2>&1 &
    heart=$!
  else
    complain "cannot write $run_dir: the command's output and exit status are not kept"
    run_dir=''
  fi
  started=$now_iso
  child='' child_group='' deaf=1
  # Shells start background commands deaf to INT and QUIT, and cannot undo it themselves.
  # shellcheck disable=SC2016
  if env --default-signal=INT,QUIT true 2>/dev/null; then
    case $1 in *=*) ;; *) set -- env --default-signal=INT,QUIT -- "$@" && deaf='' ;; esac
  elif command -v perl >/dev/null 2>&1; then
    deaf=''
    set -- perl -e '$SIG{INT} = $SIG{QUIT} = "DEFAULT"; exec { $ARGV[0] } @ARGV or warn("$ARGV[0]: $!\n"), exit($!{ENOENT} ? 127 : 126)' -- "$@"
  fi
  ! command -v setsid >/dev/null 2>&1 || child_group=-
  for signal in HUP INT QUIT TERM USR1 USR2; do
    # shellcheck disable=SC2064
    trap "pass_on $signal" $signal
  done
  # A background command's input is /dev/null unless it is said to be another.
  exec 3<&0
  if [ -n "$run_dir" ]; then
    supervised "$@" <&3 >"$scratch/out" 2>"$scratch/err" 3<&- &
  else
    supervised "$@" <&3 3<&- &
  fi
  child=$!
  exec 3<&-
  set --
  while [ $checkpoints -gt 0 ]; do
    eval "set -- \"\$checkpoint_$checkpoints\" \"\$@\""
    checkpoints=$((checkpoints - 1))
  done
  checkpointer=''
  if [ $# -gt 0 ]; then
    checkpoint "$@" </dev/null >/dev/null &
    checkpointer=$!
  fi
  while :; do
    interrupted=''
    # Some shells remark on signals here.
    wait "$child" 2>/dev/null
    status=$?
    # A signal ends the wait, not the command.
    [ -n "$interrupted" ] || break
  done
  child=''
  # The command's group may live on without it; the clock that runs against it does not.
  [ -z "$killer" ] || kill "$killer" 2>/dev/null
  now
  if [ -n "$run_dir" ]; then
    note_exit || complain 'cannot write exit.json'
    settle_streams
    { kill "$heart" && wait "$heart"; } 2>/dev/null
  fi
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap - QUIT USR1 USR2
  if [ -n "$checkpointer" ]; then
    printf '' >"$scratch/stop"
    { read -r sleeper <"$scratch/sleeper"; } 2>/dev/null
    kill "${sleeper:-}" 2>/dev/null
    wait "$checkpointer"
  fi
  number=1
  while [ $number -le $outputs ]; do
    eval "set -- \"\$@\" \"\$output_$number\""
    number=$((number + 1))
  done
  [ -z "$log$run_dir" ] || [ -z "$log" ] || set -- "$@" "$run_dir/stdout.log" "$run_dir/stderr.log"
  [ $# = 0 ] || keep missing "$@"
  return $status
}

# Becomes the command, in a group of its own, so that signals reach everything that it starts.
supervised() {
  trap - EXIT HUP INT QUIT TERM USR1 USR2
  here=$(cd -- "$(dirname -- "$0")" && pwd -P)
  if [ -n "$user_locale" ]; then LC_ALL=$user_locale; else unset LC_ALL; fi
  # It has the grant in its file.
  unset WORKER_RESULTS_GRANT
  WORKER_ID=$task WORKER_RESULTS_LOCAL_DIR=$dir PATH=$here:$PATH NODE_PATH=$here${NODE_PATH:+:}${NODE_PATH-}
  export WORKER_ID WORKER_RESULTS_LOCAL_DIR PATH NODE_PATH
  [ -z "$child_group" ] || exec setsid "$@"
  exec "$@"
}

# Puts a grant that came in the environment where the command's own calls look for it.
keep_grant() {
  [ -n "${WORKER_RESULTS_GRANT-}" ] && [ ! -e "$dir/.worker/$task/grant.json" ] || return 0
  grant='' g_best=0
  consider_grant WORKER_RESULTS_GRANT "$WORKER_RESULTS_GRANT"
  [ -n "$grant" ] || return 0
  make_folder "$dir/.worker/$task" || return 0
  temporary "$dir/.worker/$task"
  keep_track "$R"
  (umask 077 && printf '%s' "$WORKER_RESULTS_GRANT" >"$R" && sync_files "$R" && mv -f -- "$R" "$dir/.worker/$task/grant.json") 2>/dev/null || remark 'cannot keep the grant for the command'
}

# Takes the exit record's place on the disk before the command starts: a disk that it fills still has room for its end.
take_exit_room() {
  temporary "$run_dir"
  exit_room=$R
  keep_track "$exit_room"
  # Where there is none even now, the record waits for it like everything else.
  { printf '%2048s' '' >"$exit_room"; } 2>/dev/null || :
}

# Writes how the command ended. A status above 128 is taken for a signal: the shell does not tell them apart.
note_exit() {
  code=$status signal=null
  if [ "$status" -gt 128 ] && R=$(kill -l $((status - 128)) 2>/dev/null) && [ -n "$R" ]; then
    case $R in *[!"$ALNUM"]* | [0123456789]*) ;; *) code=null signal="\"SIG${R#SIG}\"" ;; esac
  fi
  json=$(printf '{"v":1,"task_id":"%s","run_id":"%s","code":%s,"signal":%s,"started_at":"%s","ended_at":"%s"}' \
    "$task" "$run_json" "$code" "$signal" "$started" "$now_iso")
  # Over what lies there, which takes no more room; cut to its length only then. What cannot be cut off are spaces.
  {
    printf '%s\n' "$json" 1<>"$exit_room" || return 1
    dd if=/dev/null of="$exit_room" bs=$((${#json} + 1)) seek=1 count=0
    sync_files "$exit_room" "$run_dir" && mv -f -- "$exit_room" "$run_dir/exit.json"
  } 2>/dev/null && forget "$exit_room"
}

# Waits for the rest of the output, but not for processes that the command left behind with its streams open.
settle_streams() {
  # shellcheck disable=SC2086
  {
    (
      trap - EXIT HUP INT QUIT TERM
      sleep 0.5 || sleep 1
      for tee_pid in $tees; do end_tee "$tee_pid"; done
    ) </dev/null >/dev/null 2>&1 &
    late=$!
    wait $tees $logs
    kill "$late" && wait "$late"
  } 2>/dev/null
}

# Ends a tee, process $1, as soon as it waits for more; what was written before it takes, however slow its reader is.
end_tee() {
  most=''
  # It reads from descriptor 0 and writes to all others.
  while read -r _ descriptor _ <"/proc/$1/syscall" && [ "$descriptor" != 0x0 ] && read -r _ taken <"/proc/$1/io"; do
    # More than a pipe holds: all of that was written later.
    : "${most:=$((taken + 1048576))}"
    [ "$taken" -lt "$most" ] || break
    sleep 0.1 || sleep 1
  done
  kill -KILL "$1"
}
