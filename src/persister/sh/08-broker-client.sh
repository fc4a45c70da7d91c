
# ---------------------------------------------------------------- asking the conductor for signed requests

# Seconds until a request is written again, until it is given up, and until then where the store itself has work to do with it.
BROKER_REPEAT_S=2 BROKER_PATIENCE_S=15 BROKER_SLOW_PATIENCE_S=180
# Minutes after which an answer is nobody's any more.
BROKER_STALE_MINUTES=60

wishes=0 swept=''

# Asks once: an operation, and what else the request is to say, as members of a JSON object. The answer comes to be the a_
# variables. Fails with the refusal, or because nobody answers.
ask() {
  op=$1 wish=${2-}
  wishes=$((wishes + 1))
  id=$$-$unique-$wishes
  if [ -n "$g_broker_url" ]; then ask_by_http; else ask_by_file; fi || return 1
  [ -z "$a_refused" ]
}

# Prints the request. The record is the one in the r_ variables.
print_request() {
  printf '{"v":1,"id":"%s","op":"%s"%s' "$id" "$op" "${wish:+,}$wish"
  case $op in put | create | complete) printf ',"record":' && write_record ;; esac
  printf '}'
}

# Leaves the request in the folder that the conductor watches, and waits for the answer beside it.
ask_by_file() {
  [ -n "$swept" ] || sweep_answers
  request=$broker_folder/$id.request answer=$broker_folder/$id.answer
  asking=1
  leave_request || return 1
  case $op in create | complete) patience=$BROKER_SLOW_PATIENCE_S ;; *) patience=$BROKER_PATIENCE_S ;; esac
  [ -n "$fresh" ] || now
  began=$now_epoch written=$now_epoch waited_ms=0 pause_ms=10
  until read_answer; do
    nap
    # Only the clock tells how long a pause really was.
    [ $waited_ms -ge 500 ] || continue
    waited_ms=0
    now
    if [ "$now_epoch" -ge "$give_up_at" ]; then
      e_code=TIMEOUT e_message="not done within $((deadline_s + ${r_size:-0} / 262144)) s"
    elif [ $((now_epoch - began)) -gt $patience ]; then
      e_code=UNAVAILABLE e_message="no conductor answered within $patience s"
    else
      # A part of an upload is nobody's once the process that wanted it is gone.
      kill -0 $$ 2>/dev/null || return 1
      [ $((now_epoch - written)) -lt $BROKER_REPEAT_S ] || { leave_request && written=$now_epoch; } || return 1
      continue
    fi
    e_retry=1 e_wait=0 fresh=''
    rm -f -- "$request" "$answer"
    return 1
  done
  fresh=''
  rm -f -- "$request" "$answer"
  asking=''
}

# Whoever watches the folder sees the request whole, or not at all.
leave_request() {
  temporary "$broker_folder"
  unfinished=$R
  { print_request >"$unfinished" && mv -f -- "$unfinished" "$request"; } 2>/dev/null && return
  e_code=UNAVAILABLE e_retry='' e_message='cannot leave a request'
  return 1
}

# Pauses, each time for longer.
nap() {
  fraction=$((1000 + pause_ms))
  # Not every sleep knows fractions.
  sleep "0.${fraction#1}" 2>/dev/null || { sleep 1 && waited_ms=$((waited_ms + 1000)); }
  waited_ms=$((waited_ms + pause_ms)) pause_ms=$((pause_ms < 70 ? pause_ms * 3 / 2 : 100))
}

# Reads the answer's file; fails as long as it is not there or not whole.
read_answer() {
  [ -s "$answer" ] || return 1
  said=''
  { while IFS= read -r line; do said=$said$line$NL; done <"$answer"; } 2>/dev/null
  parse_answer
}

# Removes answers that came too late for whoever asked: they are secrets that nobody needs.
sweep_answers() {
  swept=1
  set +f
  set -- "$broker_folder"/*.answer
  set -f
  [ ! -e "$1" ] || find "$broker_folder" -name '*.answer' -type f -mmin +$BROKER_STALE_MINUTES -exec rm -f -- {} + 2>/dev/null
}

# Removes what this process and its lanes have left there, when it ends before they have their answers.
forget_wishes() {
  set +f
  rm -f -- "$broker_folder/$$-$unique"* "$broker_folder/.tmp-$$-$unique"*
  set -f
}

# Posts the request to the conductor.
ask_by_http() {
  request_to "$g_broker_url"
  add_header content-type application/json
  [ -z "$g_broker_token" ] || add_header authorization "Bearer $g_broker_token"
  # Arguments and lines of configuration have limits; a file has none.
  if [ "${r_metadata_size:-0}" -gt 2048 ]; then
    { need_scratch && print_request >"$scratch/request"; } 2>/dev/null || {
      e_code=NO_SPACE e_retry='' e_message='no room for a temporary file'
      return 1
    }
    quote "@$scratch/request"
    config="${config}data-binary = \"$R\"$NL"
  else
    R=$(print_request)
    replace "$R" "$NL" ''
    quote "$R"
    config="${config}data-raw = \"$R\"$NL"
  fi
  send || { network_failure && return 1; }
  [ -n "$CR" ] || CR=$(printf '\r')
  said=${reply##*"$CR$NL$CR$NL"}
  [ "$http_status" != 200 ] || ! parse_answer || return 0
  e_retry='' e_wait=0 e_message="the broker answered $http_status"
  case $http_status in
    401 | 403) e_code=ACCESS_DENIED ;;
    429 | 5??) e_code=UNAVAILABLE e_retry=1 ;;
    *) e_code=PROTOCOL ;;
  esac
  return 1
}

# Takes the answer in said apart: a_stored, a_upload, a_expires, a_missing, the first request's a_method and a_url, and its
# a_headers as lines of curl's configuration; or a_refused, with the failure described. Fails when it is none to this request, or
# not whole.
parse_answer() {
  a_stored='' a_upload='' a_expires='' a_missing='' a_method='' a_url='' a_headers='' a_refused=''
  case $said in
    "stu-broker 1 $id${NL}end $id$NL" | "stu-broker 1 $id$NL"*"${NL}end $id$NL") ;;
    *) return 1 ;;
  esac
  requests=0
  IFS=$NL
  # shellcheck disable=SC2086
  set -- $said
  unset IFS
  for line; do
    rest=${line#* }
    case $requests$line in
      ?'error '*)
        a_refused=1 e_code=${rest%% *} e_retry='' e_wait=0
        case $e_code in '' | *[!ABCDEFGHIJKLMNOPQRSTUVWXYZ_]*) e_code=PROTOCOL ;; esac
        rest=${rest#* }
        case $rest in 'retry '*) e_retry=1 ;; esac
        tame "${rest#* }"
        e_message=$R
        ;;
      ?'missing '*) a_missing=" $rest " ;;
      ?'stored '*) a_stored=$rest ;;
      ?'upload '*) a_upload=$rest ;;
      ?'expires '*) a_expires=$rest ;;
      0'request '*)
        requests=1
        rest=${rest#* }
        a_method=${rest%% *} a_url=${rest#* }
        ;;
      1'request '*) requests=2 ;;
      # curl knows the length of what it sends, and no other would be taken.
      1'header content-length '*) ;;
      1'header '*)
        quote "${rest%% *}: ${rest#* }"
        a_headers="${a_headers}header = \"$R\"$NL"
        ;;
    esac
  done
}

# Whether what was signed is of method $1.
expect_signed() {
  [ "$a_method" != "$1" ] || return 0
  e_code=PROTOCOL e_retry='' e_message='the broker signed nothing'
  return 1
}

# Sends the request that was signed, with further arguments for curl.
send_signed() {
  request_to "$a_url"
  config=$config$a_headers
  send "$@"
}

# What a refusal of a signed request means: a taken name is looked at again, and so is one whose time may be up.
signed_failure() {
  s3_failure "$1"
  case $e_code:$s3_code in EXISTS:* | EXPIRED:* | ACCESS_DENIED:RequestTimeTooSkewed) e_code=UNAVAILABLE e_retry=1 ;; esac
}
