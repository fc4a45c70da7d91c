# ---------------------------------------------------------------- flush

# Delivers everything of the task that no remote tier has, oldest first.
flush() {
  folder=$dir/$task spooled=1 still=0 missing=0
  [ -d "$folder" ] || return 0
  # Left over from processes that died; whoever should still be writing one fails at its rename and says so.
  find "$folder" -name '.tmp-*' -type f -mmin +1440 -exec rm -f -- {} + 2>/dev/null
  listed=$(list_task | cut -f 1,2)
  IFS=$NL
  # shellcheck disable=SC2086
  set -- $listed
  unset IFS
  remote=''
  if has_remote; then remote=1; fi
  for line; do
    key=${line%%"$TAB"*}
    check_key "$key"
    spool_name "$r_timestamp" "$name"
    marked=$r_file
    load_record "$folder/$r_file" || continue
    if [ -n "$r_tiers" ] && satisfied "$require"; then
      [ ! -e "$folder/.pending/$marked" ] || rm -f -- "$folder/.pending/$marked" 2>/dev/null
      continue
    fi
    b_path=$folder/$r_file
    if [ -n "$remote" ] && take && deliver_committed "$require" && [ -n "$r_tiers" ] && satisfied "$require"; then
      [ -n "$silent" ] || print_result
      continue
    fi
    still=$((still + 1))
    satisfied "$require" || missing=$((missing + 1))
  done
  [ -z "$remote" ] || abandon_uploads
  [ $still = 0 ] || [ -n "$silent" ] || mention "$still results are still only in the local spool"
  [ $missing = 0 ] || return 3
}

