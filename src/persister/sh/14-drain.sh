# ---------------------------------------------------------------- drain

# Finds the newest result of the name about to be stored in the listing; true when it has the bytes that were staged.
find_unchanged() {
  [ -n "$listing" ] || return 1
  R=$(printf '%s\n' "$listing" | PERSIST_RESULT_TEXT=$name awk -F "$TAB" -v skip=$((${#task} + 18)) '
    substr($1, skip) == ENVIRON["PERSIST_RESULT_TEXT"] { found = $3 "\t" $1 }
    END { print found }')
  unchanged_key=${R#*"$TAB"}
  [ "${R%%"$TAB"*}" = "$b_sha" ]
}

# Stores path $1 in the spool unless its newest result has the same bytes, and leaves delivering it for later. Puts what
# became of it into outcome (stored, unchanged, missing or failed), with outcome_key and outcome_error.
store_output() {
  outcome_key='' outcome_error='' asked_type='' require='' later=1 hushed=1
  read_metadata
  if [ ! -e "$1" ] && [ ! -L "$1" ]; then
    outcome=missing
  elif store "$1"; then
    outcome=$verdict
    if [ $outcome = stored ]; then outcome_key=$r_key; else outcome_key=$unchanged_key; fi
  else
    tame "$last_complaint"
    outcome=failed outcome_error=$R
  fi
  later='' hushed=''
}

# Notes what there is of the task, for store_output. Not in a file: there may be no room for one.
note_listing() { listing=$(take_stock); }

# Puts text $1 into R as the inside of a JSON string, whatever its bytes are.
json_text() {
  case $1 in
    *[!"$PRINTABLE"]*)
      describe_text "$1"
      R=$t_json
      case $R in *[!"$PRINTABLE"]*) R=$(printf '%s' "$R" | iconv -c -f UTF-8 -t UTF-8 2>/dev/null | tr '\1-\37\177' '?') ;; esac
      ;;
    *) quote "$1" ;;
  esac
}

drain() {
  asked_task='' reports='' comma='' seal=''
  # The outputs stay behind as the positional parameters.
  count=$#
  while [ "$count" -gt 0 ]; do
    case $1 in
      -o | --output | -t | --task-id | --seal)
        [ "$count" -gt 1 ] || misused "$1 needs a value"
        case $1 in -t | --task-id) asked_task=$2 ;; --seal) seal=${2:-.} ;; *) set -- "$@" "$2" ;; esac
        shift 2
        count=$((count - 2))
        continue
        ;;
      --output=*) set -- "$@" "${1#*=}" ;;
      --task-id=*) asked_task=${1#*=} ;;
      --json) json=1 ;;
      --seal=*) seal=${1#*=} seal=${seal:-.} ;;
      *) misused "drain does not know $1" ;;
    esac
    shift
    count=$((count - 1))
  done
  case $seal in *[!"$ALNUM"-]*) misused '--seal must be the id of a fence' ;; esac
  need_task
  note_listing
  # All are safe in the spool before the first is sent: whoever asks for a drain may be about to end the sandbox.
  for output; do
    store_output "$output"
    if [ -n "$json" ]; then
      json_text "$output" && report="{\"path\":\"$R\",\"status\":\"$outcome\",\"key\":"
      json_text "$outcome_key" && report="$report${outcome_key:+\"}${R:-null}${outcome_key:+\"},\"error\":"
      json_text "$outcome_error" && report="$report${outcome_error:+\"}${R:-null}${outcome_error:+\"}}"
      reports=$reports$comma$report comma=,
    else
      printf '%s\n' "$outcome$TAB$output${outcome_key:+$TAB}$outcome_key${outcome_error:+$TAB}$outcome_error"
    fi
  done
  listing='' require='' silent=1
  flush
  if [ -n "$seal" ]; then
    # Whoever stores something from now on cannot count on its being noticed in the spool.
    set -- "$dir/.worker/$task"
    [ ! -e "$1/finishing-$seal" ] || true 2>/dev/null >"$1/sealed-$seal" || die 1 "cannot write $1"
    fence_stands "$1/finishing-$seal" || die 1 "nobody is terminating $task as $seal"
  fi
  if [ -z "$json" ]; then
    take_stock | awk -F "$TAB" '$2 == "" { pending++ } END { print NR + 0 " results, " pending + 0 " of them only in the local spool" }'
  else
    printf '{"v":1,"outputs":[%s],"records":[' "$reports"
    take_stock | cut -f 4- | awk 'BEGIN { ORS = "" } NR > 1 { print "," } { print }'
    printf ']}\n'
  fi
}

