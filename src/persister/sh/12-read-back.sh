# ---------------------------------------------------------------- reading back

# Prints a line for every whole result of the task in the spool, in key order: key, tiers, digest and record, with tabs between.
list_task() {
  [ -d "$dir/$task" ] || return 0
  (
    cd -- "$dir/$task" || exit 1
    find . ! -name . -prune -type f -name '[!.]*.meta.json' -exec awk -v mode=records -v task="$task" "$AWK" {} + 2>/dev/null | sort
  )
}

list() {
  tasks=${1:-${WORKER_ID-}}
  if [ -n "$tasks" ]; then
    task_id_problem "$tasks" && misused "task id $R"
    set -- "$tasks"
  else
    set +f
    set -- "$dir"/*
    set -f
  fi
  field=1
  [ -z "$json" ] || field=4-
  for task; do
    task=${task##*/}
    task_id_problem "$task" || list_task | cut -f $field
  done
}

check_key() {
  task=${1%%/*} name=${1#*/}
  case $1 in */*) ;; *) return 1 ;; esac
  r_timestamp=${name%"${name#???????????????}"}
  name=${name#"$r_timestamp"}
  case $r_timestamp$name in [0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]-[0-9][0-9][0-9][0-9][0-9][0-9]-?*) ;; *) return 1 ;; esac
  name=${name#-}
  task_id_problem "$task" && return 1
  describe_name "$name"
  [ -z "$n_problem" ] || return 1
  stamp_to_epoch "$r_timestamp"
  epoch_to_stamp "$R"
  [ "$R" = "$r_timestamp" ]
}

# Checks that file $1 has digest $2; an unknown one is taken on trust.
check_digest() {
  [ -n "$2" ] || return 0
  R=$($SHA256_BIG <"$1")
  [ "${R%% *}" = "$2" ] && return 0
  complain "$key from $3: its bytes are not those that were stored"
  return 1
}

# Hands file $1 over as the result.
hand_over() {
  case $(dd if="$1" bs=15 count=1 2>/dev/null | tr -d '\0') in
    stu-conductor/e) die 1 "$key is encrypted: only a conductor with the private key can read it, nobody here" ;;
  esac
  case $output in
    '' | -) cat -- "$1" || die 1 'cannot write to standard output' ;;
    *)
      case $output in /*) ;; *) output=./$output ;; esac
      temporary "${output%/*}"
      keep_track "$R"
      { cat -- "$1" >"$R" && sync_files "$R" && mv -f -- "$R" "$output"; } 2>/dev/null || die 1 "cannot write $output"
      ;;
  esac
}

# Downloads into the scratch folder with a sender and its arguments. 0: there, 1: not there or refused.
download() {
  where=$1
  shift
  got=$scratch/body
  fresh=''
  "$@" -o "$got" || {
    network_failure
    failed=1
    complain "cannot read $key: $e_message" && return 1
  }
  case $http_status in
    200) return 0 ;;
    404 | 405) return 1 ;;
    # A session may not list, and who may not list is told 403 of what does not exist.
    403) [ "$where$s3_granted" != s31 ] || return 1 ;;
  esac
  CR=$(printf '\r')
  [ ! -f "$got" ] || reply="$reply$CR$NL$CR$NL$(dd if="$got" bs=4096 count=1 2>/dev/null | tr -d '\0')"
  case $where in s3) s3_failure GET ;; *) http_failure ;; esac
  failed=1
  complain "cannot read $key: $e_message"
  return 1
}

# Downloads the result from S3, by whatever means there are; a policy alone only writes.
download_s3() {
  s3_means
  case $R in
    credentials | session)
      open_s3 "$R" && object_place "$s3_prefix" "$s3_bucket" || return 1
      no_meta
      download s3 s3_send GET "$object" '' $EMPTY_SHA256
      ;;
    broker | both)
      open_broker
      give_up_at=$((now_epoch + deadline_s))
      ask get "\"key\":\"$task/$r_timestamp-$n_json\"" && expect_signed GET || {
        failed=1
        complain "cannot read $key: $e_message" && return 1
      }
      give_up_at=$patient_until
      download s3 send_signed
      ;;
    *) return 1 ;;
  esac
}

retrieve() {
  key=$1 failed=''
  check_key "$key" || { tame "$key" && misused "key must be \"{task_id}/{YYYYMMDD-HHMMSS}-{name}\" (got \"$R\")"; }
  folder=$dir/$task
  spool_name "$r_timestamp" "$name"
  if load_record "$folder/$r_file" && [ "$r_key" = "$key" ]; then
    check_digest "$folder/$r_file" "$r_sha256" local && { hand_over "$folder/$r_file" && return 0; }
    failed=1
  fi
  check_key "$key"
  now
  # What is big takes as long as it moves; only standing still ends it.
  patient_until=$((now_epoch + 86400))
  give_up_at=$patient_until
  r_task_id=$task r_key=$key
  need_scratch || { reason && die 1 "cannot write ${TMPDIR:-/tmp}$R"; }
  s3_granted=''
  if download_s3; then
    answer_header x-amz-meta-sha256
    check_digest "$got" "$R" s3 && hand_over "$got" && return 0
    failed=1
  fi
  give_up_at=$patient_until
  http_means
  if [ -n "$R" ] && take_apart "$http_endpoint"; then
    query=${http_endpoint#*\?}
    [ "$query" != "$http_endpoint" ] || query=''
    request_to "${http_endpoint%%[?#]*}"
    request_to "${http_endpoint%%://*}://${u_host}${u_path%/}/$task/$r_timestamp-$n_path${query:+?}$query"
    http_authorize
    if download http send; then
      answer_header x-result-sha256
      sha=$R
      [ -n "$sha" ] || { answer_header etag && sha=$R; }
      sha=${sha#\"} sha=${sha%\"}
      case $sha in *[!0123456789abcdef]*) sha='' ;; esac
      [ ${#sha} = 64 ] || sha=''
      check_digest "$got" "$sha" http && hand_over "$got" && return 0
      failed=1
    fi
  fi
  [ -n "$failed" ] || complain "no result has the key $key"
  return 1
}

