# ---------------------------------------------------------------- S3 in parts, with credentials

# Whether the upload in the u_ variables is one to the same place, so that this process can end it.
upload_is_near() { [ "$u_v" = 1 ] && [ "$u_bucket" = "$s3_bucket" ] && [ "$u_endpoint" = "$s3_endpoint" ] && [ -n "$u_objectKey" ] && [ -n "$u_uploadId" ]; }

# Whether it is one of this very body, so that this process can go on with it.
upload_is_ours() {
  upload_is_near && [ "$u_objectKey" = "$object_key" ] && [ "$u_sha256" = "$r_sha256" ] && [ "$u_partBytes" = $part_bytes ]
}

# Puts the parts in u_parts, a line of number, ETag and checksum for each, into u_parts_json and what else is needed to save
# and to name the upload into variables of its own.
describe_upload() {
  describe_text "$object_key" && u_key_json=$t_json
  describe_place
  upload_query "$u_uploadId"
  u_parts_json=''
  IFS=$NL
  # shellcheck disable=SC2086
  set -- $u_parts
  unset IFS
  for line; do add_s3_part "$line"; done
}

upload_query() {
  describe_text "$1"
  replace "$t_path" / %2F
  u_query=uploadId=$R
}

# Adds the line of a part to u_parts_json.
add_s3_part() {
  quote "${1#*"$TAB"}"
  sum=${R#*"$TAB"}
  u_parts_json="$u_parts_json${u_parts_json:+,}\"${1%%"$TAB"*}\":{\"etag\":\"${R%%"$TAB"*}\"${sum:+,\"checksum\":\"$sum\"}}"
}

# Prints the upload as it is kept.
print_s3_upload() {
  printf '{"v":1,"objectKey":"%s","bucket":"%s","endpoint":%s,"sha256":"%s","uploadId":"%s","partBytes":%s,"parts":{%s}}' \
    "$u_key_json" "$u_bucket_json" "$u_endpoint_json" "$r_sha256" "$u_id_json" $part_bytes "$u_parts_json"
}

begin_upload() { u_parts='' && repeat $S3_ATTEMPTS create_upload && describe_upload && save_upload; }

create_upload() {
  no_meta
  s3_type=$r_content_type s3_extra=$s3_headers s3_sum_name=x-amz-checksum-algorithm s3_sum=SHA256
  add_result_meta
  s3_send POST "$object" uploads= $EMPTY_SHA256 -X POST --data-binary '' || { network_failure && return 1; }
  [ "$http_status" = 200 ] || { s3_failure CreateMultipartUpload && return 1; }
  answer_element UploadId
  u_uploadId=$R
  [ -z "$R" ] || return 0
  e_code=PROTOCOL e_retry='' e_message='CreateMultipartUpload gave no upload id'
  return 1
}

# One attempt at part $number.
put_s3_part() {
  no_meta
  to_base64 "$part_sha" && part_sum=$R
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
  part_receipt=$etag$TAB$R
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
  choose_part_size
  put_part=put_s3_part note_part=add_s3_part print_upload=print_s3_upload
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
  case $R in
    credentials | session) ! open_s3 "$R" || abandon_upload ;;
    broker | both) open_broker && abandon_by_broker ;;
  esac
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

