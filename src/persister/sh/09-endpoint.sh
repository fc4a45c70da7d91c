# ---------------------------------------------------------------- HTTP endpoint

http_failure() {
  e_retry=''
  case $http_status in
    401) e_code=EXPIRED ;;
    403) e_code=ACCESS_DENIED ;;
    404 | 405 | 410) e_code=NOT_FOUND ;;
    409 | 412) e_code=EXISTS ;;
    413) e_code=TOO_LARGE ;;
    501) e_code=UNSUPPORTED ;;
    507) e_code=NO_SPACE ;;
    408 | 425 | 429 | 5??) e_code=UNAVAILABLE e_retry=1 ;;
    # The body was damaged on its way.
    422) case $reply in *'"digest_mismatch"'*) e_code=INTEGRITY e_retry=1 ;; *) e_code=PROTOCOL ;; esac ;;
    *) e_code=PROTOCOL ;;
  esac
  [ -n "$CR" ] || CR=$(printf '\r')
  said=${reply##*"$CR$NL$CR$NL"}
  [ -z "$http_token" ] || { replace "$said" "$http_token" … && said=$R; }
  tame "$said"
  e_message="HTTP $http_status${R:+: }$(printf '%.160s' "$R")"
  retry_after
}
CR=''

http_authorize() { [ -z "$http_token" ] || add_header authorization "Bearer $http_token"; }

http_post() {
  request_to "$http_endpoint"
  http_authorize
  add_field key "$r_key"
  add_field task_id "$r_task_id"
  # Arguments and lines of configuration have limits; a file has none.
  if [ "$r_metadata_size" -gt 2048 ]; then
    { need_scratch && printf '%s' "$r_metadata" >"$scratch/metadata"; } 2>/dev/null || {
      e_code=NO_SPACE e_retry='' e_message='no room for a temporary file'
      return 1
    }
    quote "$scratch/metadata"
    quote "metadata=<\"$R\""
    config="${config}form = \"$R\"$NL"
  else
    add_field metadata "$r_metadata"
  fi
  add_field sha256 "$r_sha256"
  add_field content_type "$r_content_type"
  add_field created_at "$r_created_at"
  [ -z "$r_archive" ] || add_field archive "$r_archive"
  form_file "$b_path" "$r_name" "${r_content_type%%;*}"
  send -F "$R" || { network_failure && return 1; }
  case $http_status in 2??) return 0 ;; esac
  http_failure
  return 1
}

http_store() {
  take_apart "$http_endpoint" || {
    e_code=INVALID_OPTION e_retry='' e_message='results endpoint is not a URL that starts with http:// or https://'
    return 1
  }
  location=$u_base$u_path
  [ -n "$u_path" ] || location=$location/
  repeat $HTTP_ATTEMPTS http_post
}

