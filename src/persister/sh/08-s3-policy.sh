# ---------------------------------------------------------------- S3 with a grant's policy

# Adds a form field to config, text as it is; $2 may be quoted already, as $3.
add_field() {
  if [ $# = 2 ]; then quote "$2" && set -- "$1" "$2" "$R"; fi
  config="${config}form-string = \"$1=$3\"$NL"
}

# Whether the policy brings a field of its own by the name of $1 (lower case).
policy_has() {
  case $g_names in *" $1 "*) return 0 ;; esac
  return 1
}

add_policy_field() {
  policy_has "x-amz-meta-$1" && return
  if [ $# = 3 ]; then add_field "x-amz-meta-$1" "$2" "$3"; else add_field "x-amz-meta-$1" "$2"; fi
}

# Puts what stands for file $1 in a form, under file name $2, into R.
form_file() {
  quote "$1"
  R="file=@\"$R\""
  # As browsers do; curl itself knows other escapes in other versions.
  file=$R
  replace "$2" '"' %22
  replace "$R" '\' %5C
  R="$file;filename=\"$R\";type=$3"
}

# One attempt at posting file $1 of $2 bytes as object key $3 with content type $4 and digest $5.
# https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html
s3_post() {
  if [ "$2" -gt "$g_max_bytes" ]; then
    e_code=TOO_LARGE e_retry='' e_message="$2 bytes are more than the grant's limit of $g_max_bytes"
    return 1
  fi
  request_to "$g_url"
  add_field key "$3"
  config=$config$g_form
  policy_has content-type || add_field Content-Type "$4"
  # A policy that names a field wants it sent, if only with nothing in it.
  if [ "$6" = record ]; then
    for field in archive metadata name task-id; do add_policy_field $field ''; done
  else
    add_policy_field archive "$r_archive"
    if [ -n "$sidecar" ]; then add_policy_field metadata ''; else add_policy_field metadata "$r_metadata_ascii" "$r_metadata_config"; fi
    add_policy_field name "$n_uri"
    add_policy_field task-id "$r_task_id"
  fi
  add_policy_field created-at "$r_created_at"
  add_policy_field sha256 "$r_sha256"
  if policy_has x-amz-checksum-algorithm; then
    to_base64 "$5"
    add_field x-amz-checksum-sha256 "$R"
  fi
  form_file "$1" "$r_name" "${4%%;*}"
  send -F "$R" || { network_failure && return 1; }
  case $http_status in 2??) return 0 ;; esac
  s3_failure POST
  # RGW says AccessDenied without a word for a policy whose time is up.
  if [ "$e_code" = ACCESS_DENIED ]; then
    now
    stamp_of_iso "$g_expires_at" && [ "$R" -le "${now_stamp%-*}${now_stamp#*-}" ] && e_code=EXPIRED e_message="$e_message; the grant expired at $g_expires_at"
  fi
  return 1
}

# Puts the digits of an ISO time, to the second, into R; 0 for what is none.
stamp_of_iso() {
  case $1 in
    [0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9]*Z) ;;
    *) R=0 && return 1 ;;
  esac
  R=${1%"${1#???????????????????}"}
  IFS='-T:'
  # shellcheck disable=SC2086
  set -- $R
  unset IFS
  R=$1$2$3$4$5$6
}

s3_with_policy() {
  fit_metadata
  trim_slashes "$g_prefix"
  object_place "$R" "$g_bucket" || return 1
  if [ -n "$sidecar" ]; then
    side_record || return 1
    repeat $S3_ATTEMPTS s3_post "$side" $(($(wc -c <"$side"))) "$object_key.meta.json" application/json "$side_sha" record || return 1
  fi
  repeat $S3_ATTEMPTS s3_post "$b_path" "$r_size" "$object_key" "$r_content_type" "$r_sha256" result
}

