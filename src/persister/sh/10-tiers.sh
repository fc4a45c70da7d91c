# ---------------------------------------------------------------- tiers

# Reads the grant that is good for longest of those in the environment, its file and the task's own folder into the g_
# variables: a conductor that extends a worker's time writes a fresh file, while the environment stays as it was.
grant_read=''
read_grant() {
  grant='' g_best=0
  [ -z "${WORKER_RESULTS_GRANT-}" ] || consider_grant WORKER_RESULTS_GRANT "$WORKER_RESULTS_GRANT"
  own=$dir/.worker/$task/grant.json
  given=${WORKER_RESULTS_GRANT_FILE-}
  [ "$given" != "$own" ] || given=''
  for path in "$given" "$own"; do
    case $path in '') continue ;; /*) ;; *) path=./$path ;; esac
    if [ -r "$path" ]; then
      consider_grant "$path"
    elif [ "$path" != "$own" ] || [ -e "$path" ]; then
      remark "cannot read the grant $path"
    fi
  done
  forget_grant
  [ -z "$grant" ] || eval "$grant"
  grant_read=1
}

forget_grant() {
  g_v='' g_task_id='' g_expires_at='' g_bucket='' g_prefix='' g_region='' g_endpoint='' g_headers='' g_http='' g_token=''
  g_url='' g_max_bytes='' g_form='' g_names=''
  g_key_id='' g_secret='' g_session=''
  g_broker='' g_broker_url='' g_broker_token='' g_broker_max='' g_broker_put=''
}

consider_grant() {
  forget_grant
  problem=unreadable
  if [ $# = 2 ]; then parsed=$(printf '%s\n' "$2" | awk -v mode=grant "$AWK"); else parsed=$(awk -v mode=grant "$AWK" "$1"); fi
  eval "$parsed"
  if [ -n "$problem" ] || [ "$g_v" != 1 ] || [ -z "$g_task_id" ] || ! stamp_of_iso "$g_expires_at"; then
    remark "the grant in $1 is malformed and not used"
  elif [ "$g_task_id" = "$task" ] && [ "$R" -gt "$g_best" ]; then
    grant=$parsed g_best=$R
  fi
}

need_grant() { [ -n "$grant_read" ] || read_grant; }

is_number() {
  case $1 in '' | *[!0123456789]*) return 1 ;; esac
}

# Puts what reaches a tier into R: credentials or environment, or of a grant session, policy, broker, both (policy, and broker for
# what is too big for it) or http, or broken (with the failure described) or nothing.
s3_means() {
  if [ -n "${WORKER_RESULTS_S3_BUCKET-}" ] && [ -n "${AWS_ACCESS_KEY_ID-}" ] && [ -n "${AWS_SECRET_ACCESS_KEY-}" ]; then R=credentials && return; fi
  need_grant
  R=''
  if [ -n "$g_bucket" ]; then
    if [ -n "$g_key_id" ] && [ -n "$g_secret" ] && [ -n "$g_session" ]; then R=session && return; fi
    if [ -n "$g_url" ] && is_number "$g_max_bytes"; then R=policy; fi
    if [ "$g_broker" = 1 ] && is_number "$g_broker_max" && is_number "$g_broker_put"; then
      case $R in '') R=broker ;; *) R=both ;; esac
    fi
    [ -z "$R" ] || return 0
    R=broken e_code=UNSUPPORTED e_message='the grant has no upload policy'
  elif [ -n "${WORKER_RESULTS_S3_BUCKET-}" ]; then
    tame "no credentials for bucket $WORKER_RESULTS_S3_BUCKET: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give a grant"
    e_code=ACCESS_DENIED e_message=$R R=broken
  fi
}
http_means() {
  if [ -n "${WORKER_RESULTS_ENDPOINT-}" ]; then
    http_endpoint=$WORKER_RESULTS_ENDPOINT http_token=${WORKER_RESULTS_TOKEN-} R=environment
    return
  fi
  need_grant
  http_endpoint=$g_http http_token=$g_token
  R=${g_http:+http}
}

has_remote() {
  s3_means
  [ -z "$R" ] || return 0
  http_means
  [ -n "$R" ]
}

# shellcheck disable=SC2034
down_s3='' down_http=''

# Tries one tier. 0: stored, with location; 1: failed, with e_code and e_message; 2: not configured.
try_tier() {
  eval "down=\$down_$1"
  if [ -n "$down" ]; then e_code=UNAVAILABLE e_message=$down && return 1; fi
  refreshed=''
  while :; do
    "$1_means"
    means=$R
    case $means in '') return 2 ;; broken) return 1 ;; esac
    [ -n "$fresh" ] || now
    give_up_at=$((now_epoch + deadline_s + r_size / 262144))
    case $1$means in
      s3credentials | s3session) s3_with_credentials ;;
      s3policy) s3_with_policy ;;
      s3broker) s3_with_broker ;;
      s3both) if [ "$r_size" -le "$g_max_bytes" ]; then s3_with_policy; else s3_with_broker; fi ;;
      http*) http_store ;;
    esac && return 0
    case $means$refreshed:$e_code in
      credentials:* | environment:*) ;;
      *1:*) ;;
      *:EXPIRED | *:ACCESS_DENIED)
        before=$grant refreshed=1
        read_grant
        # What was there may still do for the other tier.
        [ -n "$grant" ] || { grant=$before && eval "$grant"; }
        [ "$before" = "$grant" ] || continue
        ;;
    esac
    if [ -n "$e_retry" ]; then eval "down_$1=\$e_message"; fi
    return 1
  done
}

# Whether the record is where $1 wants it.
satisfied() {
  case $1 in
    '') ;;
    remote) [ -n "$r_tiers" ] ;;
    *) case "$r_tiers " in *" $1 "*) ;; *) return 1 ;; esac ;;
  esac
}

# Offers the result in the r_ variables and b_path to the tiers in order, until one has it and $1 is met. Fails only when a
# store has another result under its key and none has this one.
deliver() {
  for tier in s3 http; do
    if [ -n "$r_tiers" ] && satisfied "$1"; then break; fi
    case "$r_tiers " in *" $tier "*) continue ;; esac
    [ -n "$fresh" ] || now
    at=$now_iso
    try_tier $tier
    case $? in
      0)
        case $location in *[!"$PRINTABLE"]*) describe_text "$location" && R=$t_json ;; *) quote "$location" ;; esac
        entry="{\"tier\":\"$tier\",\"location\":\"$R\",\"at\":\"$at\"}"
        case $r_stored in '[]') r_stored="[$entry]" ;; *) r_stored=${r_stored%]},$entry] ;; esac
        r_tiers="$r_tiers $tier"
        eval "r_error_$tier=''"
        changed=1
        ;;
      1)
        if [ "$e_code" = EXISTS ] && [ -z "$r_tiers" ]; then return 1; fi
        case $tier in s3) remark "S3 storage failed: $e_message" ;; *) remark "HTTP storage failed: $e_message" ;; esac
        quote "$e_message"
        entry="{\"code\":\"$e_code\",\"message\":\"$R\",\"at\":\"$at\"}"
        eval "r_error_$tier=\$entry"
        changed=1
        ;;
    esac
  done
  return 0
}

# Delivers the result in the r_ variables and notes in its record what became of it.
deliver_committed() {
  rekeys=0
  while :; do
    changed=''
    if deliver "$1"; then
      [ -z "$changed" ] || save_record "$b_path" || remark "cannot note the delivery of $r_key: $stage_error"
      # Only now is anybody told of it; what a remote tier has needs nothing of this disk.
      [ -n "$r_tiers" ] || sync_folder || {
        unsynced=1
        release
        complain "$stage_error"
        return 1
      }
      if [ -n "$spooled" ]; then
        if [ -n "$r_tiers" ] && ! satisfied s3; then abandon_unfinished; fi
        if [ -n "$r_tiers" ]; then rm -f -- "$folder/.pending/$r_file" 2>/dev/null; else release; fi
      fi
      return 0
    fi
    rekeys=$((rekeys + 1))
    if [ $rekeys -gt 16 ] || ! rekey; then
      release
      complain "$e_message"
      return 1
    fi
  done
}

sync_folder() {
  [ -z "$spooled" ] || sync_files "$folder" && return
  cannot_write "$folder"
  return 1
}

# Gives the result the next free key, because a store has another's under its own. At every moment one whole result is in
# the spool, and a second process doing the same ends with the same new key.
rekey() {
  old=$r_file old_path=$b_path
  while :; do
    next_stamp "$r_timestamp"
    r_timestamp=$R
    spool_name "$r_timestamp" "$r_name"
    if [ -z "$spooled" ]; then
      claim_elsewhere && break
    elif ! claimed_elsewhere; then
      b_path=$folder/$r_file
      ln -- "$old_path" "$b_path" 2>/dev/null && break
      # An earlier attempt at the same.
      # shellcheck disable=SC3013
      if [ "$old_path" -ef "$b_path" ]; then break; fi
      [ -e "$b_path" ] || return 1
    fi
  done
  r_key=$r_task_id/$r_timestamp-$r_name r_error_s3='' r_error_http=''
  [ -n "$spooled" ] || return 0
  mark
  save_record "$b_path" || return 1
  sync_folder
  rm -f -- "$old_path.meta.json" && rm -f -- "$old_path" "$folder/.pending/$old" 2>/dev/null
}

