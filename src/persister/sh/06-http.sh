# ---------------------------------------------------------------- HTTP

# Whole seconds out of $1, or $2.
seconds() {
  case $1 in
    '' | *[!0123456789.]* | *.*.* | .) R=$2 ;;
    *.*) R=$((${1%%.*} + 1)) ;;
    *) R=$1 ;;
  esac
  [ "$R" -gt 0 ] || R=$2
}
seconds "${WORKER_RESULTS_STALL_SECONDS-}" 30
stall_s=$R
connect_s=$((stall_s < 10 ? stall_s : 10))
seconds "${WORKER_RESULTS_DEADLINE_SECONDS-}" 120
deadline_s=$R

# Takes URL $1 apart into u_base (scheme and host), u_host (as in the Host header) and u_path (without query).
take_apart() {
  case $1 in
    *[!"$PRINTABLE"]* | *[\ \"\\]*) return 1 ;;
    http://?* | https://?*) ;;
    *) return 1 ;;
  esac
  u_host=${1#*://}
  u_path=${u_host#"${u_host%%[/?#]*}"}
  u_host=${u_host%%[/?#]*}
  u_host=${u_host##*@}
  u_path=${u_path%%[?#]*}
  case $1 in http:*) u_host=${u_host%:80} ;; *) u_host=${u_host%:443} ;; esac
  u_base=${1%%://*}://$u_host
}

# Starts a request's configuration for curl with its URL. It reaches curl on standard input, so no secret in it shows.
request_to() {
  quote "$1"
  config="url = \"$R\"$NL"
}

feed=''

# Says where the progress of an upload can be read.
identify() { [ -z "$progress" ] || { read -r self _ </proc/self/stat && printf '%s\n' "$self $r_size" >"$scratch/sender"; } 2>/dev/null || :; }

# Adds a header whose value $3 is quoted already, where given, or has no need to be.
add_header() {
  if [ $# = 2 ]; then quote "$2" && set -- "$1" "$2" "$R"; fi
  config="${config}header = \"$1: $3\"$NL"
}

# Sends the request in config with further arguments for curl. A body of feed_bytes that command feed prints is for them to
# find at /dev/fd/4, for one request. Gives the answer's head and body in reply and its status in
# http_status; fails when there was no whole answer, with why in curl_error.
send() {
  [ -n "$fresh" ] || now
  left=$((give_up_at - now_epoch))
  [ "$left" -gt 0 ] || left=1
  fresh=''
  set -- -q -K - -gsSD - --path-as-is --proto =http,https --connect-timeout "$connect_s" \
    --speed-limit 1 --speed-time "$stall_s" --max-time "$left" -w '\n#persist-result %{http_code}\n' "$@"
  if [ -n "$feed" ]; then
    # Told its length, curl sends it as it is; it would else cut it into chunks, which S3 does not take.
    config="${config}header = \"content-length: $feed_bytes\"${NL}header = \"transfer-encoding:\"$NL"
    reply=$($feed | { printf '%s' "$config" | curl "$@" 2>&1; } 4<&0)
  else
    reply=$(printf '%s' "$config" | { identify && exec curl "$@"; } 2>&1)
  fi
  curl_status=$? feed=''
  http_status=${reply##*#persist-result }
  http_status=${http_status%%[!0123456789]*}
  [ ${#http_status} = 3 ] || http_status=000
  if [ $curl_status = 0 ]; then reply=${reply%"$NL"#persist-result*}; fi
  # A refusal stands even when the connection broke while we were still sending.
  case $http_status in [45]??) return 0 ;; esac
  if [ $curl_status = 0 ]; then
    # To curl a connection that ends among the headers is the end of them, however many are missing.
    case $reply in *"$NL"?"$NL"* | *"$NL$NL"*) return 0 ;; esac
    curl_status=52 reply='curl: (52) the answer broke off'
  fi
  curl_error=${reply##*curl: }
  curl_error=${curl_error%%"$NL"*}
  case $curl_error in '('*) ;; *) curl_error="($curl_status) curl failed" ;; esac
  return 1
}

# Puts the value of the answer's last header of a name (lower case) into R.
answer_header() {
  R=$(printf '%s\n' "$reply" | tr -d '\r' | awk -v name="$1" '
    index($0, ":") > 1 && tolower(substr($0, 1, index($0, ":") - 1)) == name { value = substr($0, index($0, ":") + 1); sub(/^[ \t]+/, "", value) }
    END { print value }')
}

# Puts the text of the first element of a name in the answer into R.
answer_element() {
  case $reply in *"<$1>"*"</$1>"*) R=${reply#*"<$1>"} R=${R%%"</$1>"*} ;; *) R='' ;; esac
  case $R in *'&'*) replace "$R" '&quot;' '"' && replace "$R" '&lt;' '<' && replace "$R" '&gt;' '>' && replace "$R" '&apos;' "'" && replace "$R" '&amp;' '&' ;; esac
}

# What a failure to talk at all means. Every failure is described by e_code, e_message, e_retry and e_wait.
e_code='' e_message='' e_retry='' e_wait=0
network_failure() {
  e_code=UNAVAILABLE e_retry=1 e_wait=0
  case $curl_status in
    28) e_code=TIMEOUT ;;
    # What no second attempt changes: wrong use of curl, files of ours, and certificates.
    1 | 2 | 3 | 4 | 23 | 26 | 27 | 43 | 51 | 53 | 54 | 58 | 59 | 60 | 66 | 77 | 80 | 82 | 83 | 90 | 91) e_retry='' ;;
    127) e_retry='' curl_error='(127) curl is not installed' ;;
  esac
  tame "${curl_error#*) }"
  e_message=$R
}

retry_after() {
  e_wait=0
  case $reply in
    *[Rr]etry-[Aa]fter:*)
      answer_header retry-after
      case $R in
        '' | *[!0123456789.]* | *.*.* | .*) ;;
        ???*) e_wait=20 ;;
        *.*) e_wait=$((${R%%.*} + 1)) ;;
        *) e_wait=$((R < 20 ? R : 20)) ;;
      esac
      ;;
  esac
}

# What an S3 answer that is no success means; codes as in https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
s3_failure() {
  answer_element Code
  s3_code=$R
  answer_element Message
  s3_message=$R
  e_retry=''
  case $s3_code in
    AccessDenied | SignatureDoesNotMatch | InvalidAccessKeyId | InvalidToken | RequestTimeTooSkewed) e_code=ACCESS_DENIED ;;
    ExpiredToken | ExpiredRequest | TokenRefreshRequired) e_code=EXPIRED ;;
    NoSuchBucket | NoSuchKey | NoSuchUpload) e_code=NOT_FOUND ;;
    PreconditionFailed) e_code=EXISTS ;;
    BadDigest | XAmzContentSHA256Mismatch | XAmzContentChecksumMismatch) e_code=INTEGRITY e_retry=1 ;;
    EntityTooLarge) e_code=TOO_LARGE ;;
    NotImplemented) e_code=UNSUPPORTED ;;
    QuotaExceeded) e_code=NO_SPACE ;;
    ConditionalRequestConflict | OperationAborted | IncompleteBody | RequestTimeout | InternalError | ServiceUnavailable | SlowDown | Throttling | ThrottlingException | RequestLimitExceeded)
      e_code=UNAVAILABLE e_retry=1
      ;;
    *)
      case $http_status in
        401 | 403) e_code=ACCESS_DENIED ;;
        404) e_code=NOT_FOUND ;;
        412) e_code=EXISTS ;;
        413) e_code=TOO_LARGE ;;
        501) e_code=UNSUPPORTED ;;
        408 | 409 | 429 | 5??) e_code=UNAVAILABLE e_retry=1 ;;
        *) e_code=PROTOCOL ;;
      esac
      ;;
  esac
  # RGW and AWS both answer an expired policy with AccessDenied; only the words tell.
  case $e_code$s3_message in ACCESS_DENIED*[Ee]xpired*) e_code=EXPIRED ;; esac
  hint=''
  case $http_status$s3_code in
    301* | *AuthorizationHeaderMalformed) 
      answer_header x-amz-bucket-region
      [ -n "$R" ] || answer_element Region
      hint=" (the bucket is in ${R:-another region})"
      ;;
  esac
  tame "${s3_code:-HTTP $http_status}${s3_message:+: $s3_message}$hint ($1)"
  e_message=$R
  retry_after
}

