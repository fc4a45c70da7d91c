
# ---------------------------------------------------------------- S3 by requests that the conductor signs

# Learns what the grant says of the place where they go, and where they are asked for.
open_broker() {
  broker_folder=$dir/.worker/$task/broker
  s3_granted='' s3_bucket=$g_bucket s3_endpoint=$g_endpoint
  trim_slashes "$g_prefix"
  s3_prefix=$R
}

s3_with_broker() {
  if [ "$r_size" -gt "$g_broker_max" ]; then
    e_code=TOO_LARGE e_retry='' e_message="$r_size bytes are more than the grant's limit of $g_broker_max"
    return 1
  fi
  open_broker
  # The conductor knows what metadata its store takes, and writes what does not fit itself.
  sidecar=''
  object_place "$s3_prefix" "$s3_bucket" || return 1
  checked=false
  if [ "$r_size" -gt "$LARGEST_SINGLE_PUT" ] || [ "$r_size" -gt "$g_broker_put" ]; then
    [ "$r_size" = 0 ] || { upload_by_broker && return; return 1; }
  elif [ "$r_size" -gt 0 ] && load_upload; then
    upload_by_broker && return
    return 1
  fi
  [ "$r_size" -ge $DIVISIBLE_FROM ] || { repeat $S3_ATTEMPTS put_by_broker && return; return 1; }
  # One request is the fastest way; where it breaks off, parts take over.
  repeat 1 put_by_broker && return
  [ -n "$e_retry" ] && upload_by_broker
}

# Takes the place where the conductor says that the result lies.
take_location() {
  case $a_stored in *[!"$PRINTABLE"]*) ;; *) location=$a_stored ;; esac
}

# One attempt at storing the result in one request.
put_by_broker() {
  ask put "\"check\":$checked" || return 1
  [ -z "$a_stored" ] || { take_location && return 0; }
  # From here on an attempt may have got through without our hearing of it.
  checked=true
  expect_signed PUT || return 1
  send_signed -T "$b_path" || { network_failure && return 1; }
  [ "$http_status" != 200 ] || return 0
  signed_failure PUT
  return 1
}

# Writes the upload down as the other implementation does.
print_broker_upload() {
  printf '{"v":"broker-1","key":"%s","bucket":"%s","endpoint":%s,"sha256":"%s","uploadId":"%s","partBytes":%s,"done":[%s]}' \
    "$r_task_id/$r_timestamp-$n_json" "$u_bucket_json" "$u_endpoint_json" "$r_sha256" "$u_id_json" $part_bytes "$u_done"
}

add_broker_part() { u_done="$u_done${u_done:+,}${1%%"$TAB"*}"; }

# Puts the parts in u_parts into u_done, and what else is needed to save the upload into variables of its own.
describe_broker_upload() {
  describe_place
  u_done=''
  IFS=$NL
  # shellcheck disable=SC2086
  set -- $u_parts
  unset IFS
  for line; do add_broker_part "$line"; done
}

# Whether the upload in the u_ variables is one by this means to the same place, so that this process can end it.
broker_upload_is_near() { [ "$u_v" = broker-1 ] && [ "$u_bucket" = "$s3_bucket" ] && [ "$u_endpoint" = "$s3_endpoint" ] && [ -n "$u_key" ] && [ -n "$u_uploadId" ]; }

broker_upload_is_ours() {
  broker_upload_is_near && [ "$u_key" = "$r_key" ] && [ "$u_sha256" = "$r_sha256" ] && [ "$u_partBytes" = $part_bytes ]
}

create_by_broker() {
  ask create || return 1
  [ -z "$a_stored$a_upload" ] || return 0
  e_code=PROTOCOL e_retry='' e_message='the broker gave no upload id'
  return 1
}

# Begins an upload, unless the result is there already.
begin_by_broker() {
  repeat $S3_ATTEMPTS create_by_broker || return 1
  [ -z "$a_stored" ] || return 0
  u_uploadId=$a_upload u_parts=''
  describe_broker_upload
  save_upload
}

# One attempt at part $number. What was signed for it is used again, unless its time is nearly up.
put_signed_part() {
  if [ "$signed_part" = "$number" ]; then
    [ -n "$fresh" ] || now
    # It must not end while the part is on its way.
    if stamp_of_iso "$a_expires"; then
      stamp_to_epoch "${R%??????}-${R#????????}"
      [ $((R - now_epoch)) -ge 30 ] || signed_part=''
    fi
  fi
  feed_bytes=$((r_size - (number - 1) * part_bytes))
  [ $feed_bytes -le $part_bytes ] || feed_bytes=$part_bytes
  if [ "$signed_part" != "$number" ]; then
    ask parts "\"key\":\"$r_task_id/$r_timestamp-$n_json\",\"upload_id\":\"$u_id_json\",\"size\":$r_size,\"part_bytes\":$part_bytes,\"parts\":[{\"number\":$number,\"sha256\":\"$part_sha\"}]" || return 1
    signed_part=$number
  fi
  expect_signed PUT || return 1
  feed="cut_part $number" part_receipt=''
  send_signed -T /dev/fd/4 || { network_failure && return 1; }
  [ "$http_status" != 200 ] || return 0
  signed_failure "UploadPart $number"
  # Whatever it was that the store did not like of the signature, a new one has a later date.
  [ "$e_code" != UNAVAILABLE ] || signed_part=''
  return 1
}

# One attempt at sending the parts that are missing and making an object of all of them.
finish_by_broker() {
  asking=1
  send_parts || return 1
  asking=''
  if ask complete "\"upload_id\":\"$u_id_json\",\"part_bytes\":$part_bytes"; then
    [ -z "$a_stored" ] || return 0
    e_code=PROTOCOL e_retry='' e_message='the broker did not say where it is'
    return 1
  fi
  [ -n "$a_missing" ] || return 1
  IFS=$NL
  # shellcheck disable=SC2086
  set -- $u_parts
  unset IFS
  u_parts=''
  for line; do
    case $a_missing in *" ${line%%"$TAB"*} "*) ;; *) u_parts=$u_parts$line$NL ;; esac
  done
  describe_broker_upload
  return 1
}

# Uploads the body in parts, going on where an earlier process stopped. Repeating it is harmless.
upload_by_broker() {
  choose_part_size
  put_part=put_signed_part note_part=add_broker_part print_upload=print_broker_upload
  anew='' signed_part='' a_missing=''
  while :; do
    a_stored=''
    if [ -z "$anew" ] && load_upload && broker_upload_is_ours; then describe_broker_upload; else begin_by_broker; fi && {
      [ -n "$a_stored" ] || repeat $S3_ATTEMPTS finish_by_broker
    } && {
      take_location
      forget_upload
      return 0
    }
    if [ "$e_code" = NOT_FOUND ]; then
      # The store has forgotten the upload; beginning anew tells whether it was completed.
      forget_upload
      [ -n "$anew" ] || { anew=1 && continue; }
    fi
    [ -n "$e_retry" ] || abandon_by_broker
    return 1
  done
}

# Has the store free what it keeps of an unfinished upload, and forgets it. What cannot be freed now is left for the next flush.
abandon_by_broker() {
  load_upload && broker_upload_is_near || return 0
  failed_code=$e_code failed_retry=$e_retry failed_message=$e_message
  describe_text "$u_key"
  quote "$u_uploadId"
  # Cleaning up is not worth waiting for longer.
  now
  give_up_at=$((now_epoch + 5))
  ask abort "\"key\":\"$t_json\",\"upload_id\":\"$R\"" && forget_upload
  e_code=$failed_code e_retry=$failed_retry e_message=$failed_message
}
