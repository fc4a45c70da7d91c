# ---------------------------------------------------------------- S3 in parts, with credentials

# Bodies from here on can go up in parts, and those beyond the second size do so from the start: for all others one request
# is faster, until it broke off once or a process died over it. The other implementation draws the same lines.
DIVISIBLE_FROM=67108864
LARGEST_SINGLE_PUT=1073741824
PART_MIB=16
# S3 takes 10,000: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
MAX_PARTS=9000

# Reads how far the upload of the result in r_file is into the u_ variables; fails when there is none that can be read.
load_upload() {
  u_v='' u_objectKey='' u_bucket='' u_endpoint='' u_sha256='' u_uploadId='' u_partBytes='' u_parts=''
  [ -n "$spooled" ] && [ -f "$folder/.upload/$r_file" ] || return 1
  problem=unreadable
  eval "$(awk -v mode=upload "$AWK" "$folder/.upload/$r_file" 2>/dev/null)"
  [ -z "$problem" ]
}

# Whether the upload in the u_ variables is one to the same place, so that this process can end it.
upload_is_near() { [ "$u_bucket" = "$WORKER_RESULTS_S3_BUCKET" ] && [ "$u_endpoint" = "$s3_endpoint" ] && [ -n "$u_objectKey" ] && [ -n "$u_uploadId" ]; }

# Whether it is one of this very body, so that this process can go on with it.
upload_is_ours() {
  upload_is_near && [ "$u_v" = 1 ] && [ "$u_objectKey" = "$object_key" ] && [ "$u_sha256" = "$r_sha256" ] && [ "$u_partBytes" = $part_bytes ]
}

# Writes it down. Without room for that the upload goes on; it only cannot be resumed.
save_upload() {
  [ -n "$spooled" ] || return 0
  [ -d "$folder/.upload" ] || mkdir -p -- "$folder/.upload" 2>/dev/null || return 0
  temporary "$folder"
  state=$R
  {
    printf '{"v":1,"objectKey":"%s","bucket":"%s","endpoint":%s,"sha256":"%s","uploadId":"%s","partBytes":%s,"parts":{%s}}' \
      "$u_key_json" "$u_bucket_json" "$u_endpoint_json" "$r_sha256" "$u_id_json" $part_bytes "$u_parts_json" >"$state" &&
      sync "$state" && mv -f -- "$state" "$folder/.upload/$r_file"
  } 2>/dev/null || rm -f -- "$state"
}

forget_upload() { [ -z "$spooled" ] || [ ! -e "$folder/.upload/$r_file" ] || rm -f -- "$folder/.upload/$r_file"; }

# Puts the parts in u_parts, a line of number, ETag and checksum for each, into u_parts_json and what else is needed to save
# and to name the upload into variables of its own.
describe_upload() {
  describe_text "$object_key" && u_key_json=$t_json
  describe_text "$WORKER_RESULTS_S3_BUCKET" && u_bucket_json=$t_json
  u_endpoint_json=null
  [ -z "$s3_endpoint" ] || { quote "$s3_endpoint" && u_endpoint_json="\"$R\""; }
  quote "$u_uploadId" && u_id_json=$R
  upload_query "$u_uploadId"
  u_parts_json=''
  IFS=$NL
  # shellcheck disable=SC2086
  set -- $u_parts
  unset IFS
  for line; do add_part "$line"; done
}

upload_query() {
  describe_text "$1"
  replace "$t_path" / %2F
  u_query=uploadId=$R
}

# Adds the line of a part to u_parts_json.
add_part() {
  quote "${1#*"$TAB"}"
  sum=${R#*"$TAB"}
  u_parts_json="$u_parts_json${u_parts_json:+,}\"${1%%"$TAB"*}\":{\"etag\":\"${R%%"$TAB"*}\"${sum:+,\"checksum\":\"$sum\"}}"
}

begin_upload() { u_parts='' && repeat $S3_ATTEMPTS create_upload && describe_upload && save_upload; }

create_upload() {
  no_meta
  s3_type=$r_content_type s3_sum_name=x-amz-checksum-algorithm s3_sum=SHA256
  add_result_meta
  s3_send POST "$object" uploads= $EMPTY_SHA256 -X POST --data-binary '' || { network_failure && return 1; }
  [ "$http_status" = 200 ] || { s3_failure CreateMultipartUpload && return 1; }
  answer_element UploadId
  u_uploadId=$R
  [ -z "$R" ] || return 0
  e_code=PROTOCOL e_retry='' e_message='CreateMultipartUpload gave no upload id'
  return 1
}

# Prints part $1 of the body.
cut_part() { dd if="$b_path" bs=1048576 skip=$((($1 - 1) * part_mib)) count=$part_mib 2>/dev/null; }

# One attempt at part $number.
put_part() {
  no_meta
  s3_sum_name=x-amz-checksum-sha256 s3_sum=$part_sum
  feed="cut_part $number" feed_bytes=$((r_size - (number - 1) * part_bytes))
  [ $feed_bytes -le $part_bytes ] || feed_bytes=$part_bytes
  s3_send PUT "$object" "partNumber=$number&$u_query" "$part_sha" -T /dev/fd/4 || { network_failure && return 1; }
  [ "$http_status" = 200 ] || { s3_failure "UploadPart $number" && return 1; }
  answer_header etag
  etag=$R
  answer_header x-amz-checksum-sha256
  case $etag$R in *[!"$PRINTABLE"]*) etag='' ;; esac
  [ -n "$etag" ] || {
    e_code=PROTOCOL e_retry='' e_message="UploadPart $number gave no ETag"
    return 1
  }
}

# Sends every fourth of the waiting parts, from the ${1}th on, and prints a line for each.
send_lane() {
  turn=0
  for number in $waiting; do
    turn=$(((turn + 1) % 4))
    [ $turn = "$1" ] || continue
    # Nobody is left to note what is sent, or another lane has failed for good.
    kill -0 $$ 2>/dev/null && [ ! -e "$halt" ] || return 0
    part_sha=$(cut_part "$number" | $SHA256_BIG) && part_sha=${part_sha%% *}
    to_base64 "$part_sha" && part_sum=$R
    repeat $S3_ATTEMPTS put_part || {
      printf '' 2>/dev/null >"$halt"
      printf 'failed\t%s\t%s\t%s\n' "$e_code" "$e_retry" "$e_message"
      return 0
    }
    printf '%s\t%s\t%s\n' "$number" "$etag" "$R"
  done
}

# Notes the parts that have arrived, as they do, and passes their lines on.
note_parts() {
  while IFS= read -r line; do
    printf '%s\n' "$line"
    case $line in failed*) continue ;; esac
    add_part "$line"
    save_upload
    arrived=$((arrived + part_bytes))
    [ -z "$progress" ] || printf '%s\n' $((arrived < r_size ? arrived : r_size)) >"$scratch/sent"
  done
}

# Sends the parts that are missing, four at a time. The lanes are a pipeline, not background commands, which would be deaf to
# an interrupt from the keyboard.
send_parts() {
  waiting=$(printf '%s' "$u_parts" | awk -v count=$(((r_size + part_bytes - 1) / part_bytes)) '
    { there[$1 + 0] } END { for (n = 1; n <= count; n++) if (!(n in there)) print n }')
  arrived=0
  for number in $waiting; do arrived=$((arrived + 1)); done
  arrived=$((r_size - arrived * part_bytes)) arrived=$((arrived > 0 ? arrived : 0))
  halt=$folder/.tmp-$$-$unique-halt
  [ -n "$spooled" ] || { need_scratch && halt=$scratch/halt; }
  keep_track "$halt"
  outcome=$({ send_lane 1 >&5 | send_lane 2 >&5 | send_lane 3 >&5 | send_lane 0 >&5; } 5>&1 </dev/null | note_parts)
  rm -f -- "$halt"
  forget "$halt"
  fresh=''
  case $NL$outcome in
    *"${NL}failed$TAB"*)
      R=${outcome#*failed"$TAB"}
      R=${R%%"$NL"*}
      e_code=${R%%"$TAB"*} R=${R#*"$TAB"}
      e_retry=${R%%"$TAB"*} e_message=${R#*"$TAB"}
      e_wait=0
      return 1
      ;;
  esac
  u_parts=$u_parts$outcome$NL
}

print_completion() { printf '%s' "$completion"; }

# One attempt at making an object of the parts.
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
complete_upload() {
  # Some stores ignore or refuse the condition on this request, so the name is looked at as well.
  s3_is_there "$object"
  case $? in 0) return 0 ;; 2) return 1 ;; esac
  no_meta
  s3_type=application/xml s3_new=$complete_conditional
  feed=print_completion feed_bytes=${#completion}
  s3_send POST "$object" "$u_query" "$completion_sha" -X POST -T /dev/fd/4 || { network_failure && return 1; }
  # There may be an error inside an answer of 200.
  case $http_status$reply in
    200*'<Error>'* | 200*'<Error '*) ;;
    200*) return 0 ;;
  esac
  s3_failure CompleteMultipartUpload
  case $complete_conditional$e_code in 1EXISTS | 1UNSUPPORTED) complete_conditional='' e_code=UNAVAILABLE e_retry=1 ;; esac
  return 1
}

complete_parts() {
  completion=$(printf '%s' "$u_parts" | sort -n | awk -F "$TAB" '
    BEGIN { print "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">" }
    $1 == "" { next }
    {
      gsub(/&/, "\\&amp;", $2); gsub(/</, "\\&lt;", $2); gsub(/"/, "\\&quot;", $2)
      gsub(/[&<>]/, "", $3)
      sum = $3 == "" ? "" : "<ChecksumSHA256>" $3 "</ChecksumSHA256>"
      print "<Part><PartNumber>" $1 "</PartNumber><ETag>" $2 "</ETag>" sum "</Part>"
    }
    END { print "</CompleteMultipartUpload>" }')
  sha256_text "$completion"
  completion_sha=$R complete_conditional=1
  repeat $S3_ATTEMPTS complete_upload
}

# Looks whether the object is there and says so in there; fails when that cannot be told, or another is.
look() {
  there=''
  s3_is_there "$object"
  case $? in 0) there=1 ;; 2) return 1 ;; esac
}

# Uploads the body in parts, going on where an earlier process stopped. Repeating it is harmless.
upload_in_parts() {
  part_mib=$(((r_size + MAX_PARTS - 1) / MAX_PARTS))
  part_mib=$(((part_mib + 1048575) / 1048576))
  [ $part_mib -ge $PART_MIB ] || part_mib=$PART_MIB
  part_bytes=$((part_mib * 1048576))
  repeat $S3_ATTEMPTS look || return 1
  [ -z "$there" ] || { forget_upload && return 0; }
  anew=''
  while :; do
    if [ -z "$anew" ] && load_upload && upload_is_ours; then describe_upload; else begin_upload; fi && send_parts && complete_parts && {
      forget_upload
      return 0
    }
    if [ "$e_code" = NOT_FOUND ]; then
      # The store has forgotten the upload: completed by a process that could not say so, or cleaned away.
      lost=$e_message
      forget_upload
      repeat $S3_ATTEMPTS look || return 1
      [ -z "$there" ] || return 0
      [ -n "$anew" ] || { anew=1 && continue; }
      e_code=NOT_FOUND e_retry='' e_message=$lost
    fi
    [ -n "$e_retry" ] || abandon_upload
    return 1
  done
}

# Frees what the store keeps of an unfinished upload and forgets it. What cannot be freed now is left for the next flush; one
# to somewhere else is left to whoever can reach it.
abandon_upload() {
  load_upload && upload_is_near || return 0
  failed_code=$e_code failed_retry=$e_retry failed_message=$e_message
  upload_query "$u_uploadId"
  describe_text "$u_objectKey"
  no_meta
  # Cleaning up is not worth waiting for longer.
  now
  give_up_at=$((now_epoch + 5))
  s3_send DELETE "$t_path" "$u_query" $EMPTY_SHA256 -X DELETE && case $http_status in 2?? | 404) forget_upload ;; esac
  e_code=$failed_code e_retry=$failed_retry e_message=$failed_message
}

# The same from where S3 has not been spoken to yet.
abandon_unfinished() {
  [ -e "$folder/.upload/$r_file" ] || return 0
  s3_means
  [ "$R" != credentials ] || ! open_s3 || abandon_upload
}

# Has the store forget uploads of results that got to another tier, or are gone.
abandon_uploads() {
  [ -d "$folder/.upload" ] || return 0
  set +f
  set -- "$folder"/.upload/*
  set -f
  for path; do
    r_file=${path##*/}
    marked=$r_file
    if load_record "$folder/$marked"; then
      [ -n "$r_tiers" ] || continue
      # Whoever holds the marker may be sending it there as well, because that was required.
      take || continue
      abandon_unfinished
      rm -f -- "$folder/.pending/$marked" 2>/dev/null
    else
      r_file=$marked
      abandon_unfinished
    fi
  done
}

