# ---------------------------------------------------------------- S3 with credentials

# Says where a bucket is: its own host at AWS, a folder at any other endpoint or where its name has dots (TLS).
s3_place() {
  describe_text "$1"
  if [ -n "$3" ]; then
    take_apart "$3" || return 1
    s3_base=$u_base s3_host=$u_host s3_path=${u_path%/}/$t_path
    return
  fi
  s3_host=s3.$2.amazonaws.com s3_path=''
  case $2 in cn-*) s3_host=$s3_host.cn ;; esac
  case $1 in
    *[!abcdefghijklmnopqrstuvwxyz0123456789-]*) s3_path=/$t_path ;;
    *) s3_host=$1.$s3_host ;;
  esac
  s3_base=https://$s3_host
}

# Puts the signature of a canonical request into R, for the moment in stamp and the scope in scope.
sign() {
  if [ -n "$perl" ]; then
    # One process in place of eleven, where perl is there. As an environment the secret is no easier to read than in its grant.
    R=$(PERSIST_RESULT_TEXT=$1 AWS_SECRET_ACCESS_KEY=$s3_secret perl -e '
      # The library is asked for by the name of its module, which would take three times as long to load as all of this.
      for (@INC) {
        next unless -f "$_/auto/Digest/SHA/SHA.so";
        eval qq(\n#line 1 "$_/Digest/SHA.pm"\npackage Digest::SHA; require XSLoader; XSLoader::load("Digest::SHA"));
        last;
      }
      require Digest::SHA unless defined &Digest::SHA::hmac_sha256_hex;
      my ($stamp, $scope) = @ARGV;
      my $key = "AWS4" . $ENV{AWS_SECRET_ACCESS_KEY};
      $key = Digest::SHA::hmac_sha256($_, $key) for split m(/), $scope;
      my $digest = Digest::SHA::sha256_hex($ENV{PERSIST_RESULT_TEXT});
      print Digest::SHA::hmac_sha256_hex(join("\n", "AWS4-HMAC-SHA256", $stamp, $scope, $digest), $key)' "$stamp" "$scope" 2>/dev/null)
    [ ${#R} != 64 ] || return 0
    # Not every perl has its libraries.
    perl=''
  fi
  if [ "$signing_scope" != "$scope $s3_secret" ]; then
    R=$(printf 'AWS4%s' "$s3_secret" | od -An -v -tx1 | tr -d ' \n')
    # A key longer than a block stands for its digest.
    [ ${#R} -le 128 ] || { R=$(printf 'AWS4%s' "$s3_secret" | $SHA256) && R=${R%% *}; }
    hmac "$R" "$day"
    hmac "$R" "$s3_region"
    hmac "$R" s3
    hmac "$R" aws4_request
    signing_key=$R signing_scope="$scope $s3_secret"
  fi
  sha256_text "$1"
  hmac "$signing_key" "AWS4-HMAC-SHA256$NL$stamp$NL$scope$NL$R"
}
signing_scope=''
skew_s=0

# Sends a signed request: method, encoded object key (may be empty), query, digest of the body, then arguments for curl.
# s3_type, s3_new, s3_sum, the lines of s3_meta (and their quoted twin) and those of s3_extra become headers.
# https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
s3_send_once() {
  method=$1 path=$s3_path/$2 query=$3 digest=$4
  shift 4
  [ -n "$fresh" ] || now
  R=$now_stamp
  [ "$skew_s" = 0 ] || epoch_to_stamp $((now_epoch + skew_s))
  day=${R%-*}
  stamp=${day}T${R#*-}Z
  request_to "$s3_base$path${query:+?}$query"
  headers='' names=''
  if [ -n "$s3_type" ]; then
    headers="content-type:$s3_type$NL" names='content-type;'
    add_header content-type "$s3_type"
  fi
  headers="${headers}host:$s3_host$NL" names=${names}host
  if [ -n "$s3_new" ]; then
    headers="${headers}if-none-match:*$NL" names="$names;if-none-match"
    add_header if-none-match '*'
  fi
  if [ -n "$s3_sum" ]; then
    headers="${headers}$s3_sum_name:$s3_sum$NL" names="$names;$s3_sum_name"
    add_header "$s3_sum_name" "$s3_sum"
  fi
  headers="${headers}x-amz-content-sha256:$digest${NL}x-amz-date:$stamp$NL$s3_meta" names="$names;x-amz-content-sha256;x-amz-date$s3_meta_names"
  add_header x-amz-content-sha256 "$digest"
  add_header x-amz-date "$stamp"
  config=$config$s3_meta_config
  if [ -n "$s3_session" ]; then
    headers="${headers}x-amz-security-token:$s3_session$NL" names="$names;x-amz-security-token"
    add_header x-amz-security-token "$s3_session"
  fi
  [ -z "$s3_extra" ] || add_extra_headers
  scope=$day/$s3_region/s3/aws4_request
  sign "$method$NL$path$NL$query$NL$headers$NL$names$NL$digest"
  add_header authorization "AWS4-HMAC-SHA256 Credential=$s3_key_id/$scope,SignedHeaders=$names,Signature=$R"
  send "$@"
}

# Adds the lines of s3_extra, wherever in the alphabet their names stand.
add_extra_headers() {
  headers=$(printf '%s' "$headers$s3_extra" | sort -t : -k 1,1)$NL names=''
  IFS=$NL
  for line in $headers; do names="$names${names:+;}${line%%:*}"; done
  for line in $s3_extra; do add_header "${line%%:*}" "${line#*:}"; done
  unset IFS
}

# Puts the moment of a Date header, "Mon, 23 Nov 2026 06:47:50 GMT", into R in seconds since 1970.
http_date() {
  # shellcheck disable=SC2086
  set -- $1
  [ $# = 6 ] || return 1
  case $2$4 in *[!0123456789]* | ?????? | ???????*) [ ${#2} = 2 ] && [ ${#4} = 4 ] || return 1 ;; esac
  case $5 in [0-2][0-9]:[0-5][0-9]:[0-6][0-9]) ;; *) return 1 ;; esac
  case $3 in
    Jan) R=01 ;; Feb) R=02 ;; Mar) R=03 ;; Apr) R=04 ;; May) R=05 ;; Jun) R=06 ;;
    Jul) R=07 ;; Aug) R=08 ;; Sep) R=09 ;; Oct) R=10 ;; Nov) R=11 ;; Dec) R=12 ;;
    *) return 1 ;;
  esac
  set -- "$4$R$2" "${5%%:*}" "${5#*:}"
  case $1 in *[!0123456789]*) return 1 ;; esac
  stamp_to_epoch "$1-$2${3%:*}${3#*:}"
}

# Sends a request, and once more when the store's clock explains its refusal.
s3_send() {
  fed=$feed
  s3_send_once "$@" || return
  [ "$http_status" = 403 ] || return 0
  answer_element Code
  # The answer to a HEAD has no body to say RequestTimeTooSkewed in.
  case $R in '' | RequestTimeTooSkewed | AccessDenied) ;; *) return 0 ;; esac
  answer_element ServerTime
  if stamp_of_iso "$R"; then
    stamp_to_epoch "${R%??????}-${R#????????}"
  else
    answer_header date
    http_date "$R" || return 0
  fi
  theirs=$R
  now
  change=$((theirs - now_epoch - skew_s))
  [ ${change#-} -ge 300 ] || return 0
  skew_s=$((theirs - now_epoch)) feed=$fed
  s3_send_once "$@"
}

# Adds user metadata to the next request; names in the order of the alphabet. Its value's quoted form may be given.
s3_meta=''
add_meta() {
  config=$s3_meta_config
  if [ $# = 3 ]; then add_header "x-amz-meta-$1" "$2" "$3"; else add_header "x-amz-meta-$1" "$2"; fi
  s3_meta_config=$config
  s3_meta="${s3_meta}x-amz-meta-$1:$2$NL" s3_meta_names="$s3_meta_names;x-amz-meta-$1"
}
no_meta() { s3_meta='' s3_meta_names='' s3_meta_config='' s3_type='' s3_new='' s3_sum='' s3_extra=''; }

# Adds what an object says of the result in the r_ variables.
add_result_meta() {
  [ -z "$r_archive" ] || add_meta archive "$r_archive"
  add_meta created-at "$r_created_at"
  [ -n "$sidecar" ] || add_meta metadata "$r_metadata_ascii" "$r_metadata_config"
  add_meta name "$n_uri"
  add_meta sha256 "$r_sha256"
  add_meta task-id "$r_task_id"
}

# The user metadata of the record in the r_ variables; without "metadata" where S3's limit leaves no room for it.
fit_metadata() {
  sidecar=''
  used=$((7 + ${#r_task_id} + 4 + ${#n_uri} + 6 + 64 + 10 + ${#r_created_at} + 8))
  [ -z "$r_archive" ] || used=$((used + 7 + ${#r_archive}))
  if [ -z "$r_metadata_ascii" ] || [ $((used + ${#r_metadata_ascii})) -gt 2048 ]; then sidecar=1; fi
}

# Whether the very object is there already: 0 yes, 1 no, 2 for a failure.
s3_is_there() {
  no_meta
  s3_send HEAD "$1" '' $EMPTY_SHA256 -I || { network_failure && return 2; }
  case $http_status$s3_granted in
    # A session may not list, and who may not list is told 403 of what does not exist.
    404* | 403?*) return 1 ;;
    200*) ;;
    *) s3_failure 'looking at the object that has this key' && return 2 ;;
  esac
  answer_header x-amz-meta-sha256
  sha=$R
  answer_header x-amz-meta-created-at
  if [ "$sha" = "$r_sha256" ] && { [ -z "$R" ] || [ "$R" = "$r_created_at" ]; }; then return 0; fi
  e_code=EXISTS e_retry='' e_message="another result has the key $r_key"
  return 2
}

s3_conditional=1

# One attempt at storing file $1 as encoded object key $2 with content type $3 and digest $4, under a name that must be free.
s3_put() {
  if [ -z "$s3_conditional" ]; then
    s3_is_there "$2"
    case $? in 0) return 0 ;; 2) return 1 ;; esac
  fi
  no_meta
  to_base64 "$4"
  s3_type=$3 s3_extra=$s3_headers s3_new=$s3_conditional s3_sum_name=x-amz-checksum-sha256 s3_sum=$R
  if [ "$5" = record ]; then
    add_meta created-at "$r_created_at"
    add_meta sha256 "$r_sha256"
  else
    add_result_meta
  fi
  s3_send PUT "$2" '' "$4" -T "$1" || { network_failure && return 1; }
  [ "$http_status" != 200 ] || return 0
  s3_failure PUT
  case $e_code in
    UNSUPPORTED)
      # Some stores have no conditional writes.
      [ -n "$s3_conditional" ] || return 1
      s3_conditional='' e_retry=1
      ;;
    EXISTS)
      message=$e_message
      s3_is_there "$2"
      case $? in
        0) return 0 ;;
        # Refused as taken, yet not there: another writer is at it or gave up just now.
        1) e_code=UNAVAILABLE e_retry=1 e_wait=0 e_message=$message ;;
      esac
      ;;
  esac
  return 1
}

# Where the record in the r_ variables goes in the bucket: prefix $1, bucket $2. Puts it into object (encoded) and location; it
# has no place where the name of the sidecar it needs would be too long for S3.
sidecar=''
object_place() {
  describe_text "$1${1:+/}"
  suffix=${sidecar:+.meta.json}
  bytes=$((t_bytes + ${#r_task_id} + 17 + n_bytes + ${#suffix}))
  if [ $bytes -gt 1024 ]; then
    e_code=INVALID_OPTION e_retry='' e_message="key with prefix${suffix:+ and $suffix} must be at most 1024 bytes of UTF-8, has $bytes"
    return 1
  fi
  object=$t_path$r_task_id/$r_timestamp-$n_path
  object_key=$1${1:+/}$r_key
  location=s3://$2/$object_key
}

trim_slashes() {
  R=$1
  while :; do case $R in /*) R=${R#/} ;; */) R=${R%/} ;; *) return ;; esac; done
}

# Learns where the bucket is and who may write to it, from the environment or, by $1, from the session of the grant.
open_s3() {
  if [ "$1" = session ]; then
    s3_granted=1 s3_bucket=$g_bucket s3_region=$g_region s3_endpoint=$g_endpoint s3_headers=$g_headers
    s3_key_id=$g_key_id s3_secret=$g_secret s3_session=$g_session
    trim_slashes "$g_prefix"
  else
    s3_granted='' s3_bucket=$WORKER_RESULTS_S3_BUCKET s3_headers=''
    s3_region=${AWS_REGION:-${AWS_DEFAULT_REGION:-us-east-1}} s3_endpoint=${AWS_ENDPOINT_URL_S3:-${AWS_ENDPOINT_URL-}}
    s3_key_id=$AWS_ACCESS_KEY_ID s3_secret=$AWS_SECRET_ACCESS_KEY s3_session=${AWS_SESSION_TOKEN-}
    trim_slashes "${WORKER_RESULTS_S3_PREFIX:-results}"
  fi
  s3_prefix=$R
  s3_place "$s3_bucket" "$s3_region" "$s3_endpoint" && return
  e_code=INVALID_OPTION e_retry='' e_message='S3 endpoint is not a URL that starts with http:// or https://'
  return 1
}

s3_with_credentials() {
  fit_metadata
  open_s3 "$means" && object_place "$s3_prefix" "$s3_bucket" || return 1
  if [ -n "$sidecar" ]; then
    side_record || return 1
    repeat $S3_ATTEMPTS s3_put "$side" "$object.meta.json" application/json "$side_sha" record || return 1
  fi
  attempts=$S3_ATTEMPTS
  if [ "$r_size" -ge $DIVISIBLE_FROM ]; then
    attempts=1
    if [ "$r_size" -gt $LARGEST_SINGLE_PUT ] || load_upload; then upload_in_parts && return; return 1; fi
  fi
  repeat $attempts s3_put "$b_path" "$object" "$r_content_type" "$r_sha256" result && return
  [ "$attempts" = 1 ] && [ -n "$e_retry" ] && upload_in_parts
}

# Writes the record to a file of its own, which nobody replaces while it is being sent.
side_record() {
  side=''
  need_scratch && side=$scratch/record && write_record >"$side" && side_sha=$($SHA256 <"$side") && side_sha=${side_sha%% *} && return 0
  e_code=NO_SPACE e_retry='' e_message='no room for a temporary file'
  return 1
}

# Repeats what fails with e_retry, after waits that double, with jitter: attempts, then the command.
repeat() {
  attempts=$1 attempt=1 wait_ms=150
  shift
  until "$@"; do
    [ -n "$e_retry" ] && [ $attempt -lt "$attempts" ] || return 1
    now
    jitter=$(od -An -N2 -tu2 /dev/urandom)
    pause=$((wait_ms / 2 + wait_ms * jitter / 131072))
    [ $((e_wait * 1000)) -le $pause ] || pause=$((e_wait * 1000))
    [ $((now_epoch + pause / 1000)) -lt $give_up_at ] || return 1
    fraction=$((1000 + pause % 1000))
    # Not every sleep knows fractions.
    sleep $((pause / 1000)).${fraction#1} 2>/dev/null || sleep $((pause / 1000 + 1))
    fresh=''
    attempt=$((attempt + 1)) wait_ms=$((wait_ms < 4000 ? wait_ms * 2 : 8000))
  done
}

