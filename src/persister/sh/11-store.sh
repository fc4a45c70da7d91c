# ---------------------------------------------------------------- storing

# Chooses how to store $1 and under which default name; complains and gives the exit status for what cannot be stored.
inspect() {
  kind=file default_name=${1%"${1##*[!/]}"}
  default_name=${default_name##*/}
  case $default_name in
    . | .. | '')
      [ "$1" = - ] || default_name=$(cd -- "$1" 2>/dev/null && pwd -L) || default_name=''
      default_name=${default_name##*/}
      ;;
  esac
  source=$1
  # A name that starts with a dash is no option.
  case $source in
    -) kind=stream default_name='' && return ;;
    /*) ;;
    *) source=./$source ;;
  esac
  if [ -d "$source" ]; then
    kind=directory
    [ -x "$source" ] && [ -r "$source" ]
  elif [ -f "$source" ]; then
    [ -r "$source" ]
  elif [ -p "$source" ] || [ -c "$source" ]; then
    kind=pipe
    [ -r "$source" ]
  elif [ -e "$source" ]; then
    complain "$1 is neither a file nor a directory"
    return 2
  else
    complain "cannot read $1: no such file or directory"
    return 1
  fi || { complain "cannot read $1: permission denied" && return 1; }
}

# Writes the names of what belongs into an archive of $parent/$base to a file, a line each, in the order that GNU tar sorts
# into, and the first of them to another. Fails where a name has a line end in it.
list_names() {
  spool=/
  [ -z "$inner" ] || spool=${first%"$base"}$inner
  (
    cd -- "${parent:-/}" || exit 1
    [ -z "$(find "$first" -name "*$NL*" 2>/dev/null)" ] || exit 1
    find "$first" -path "$spool" -prune -o ! -type s ! -type p ! -type b ! -type c -print 2>>"$remarks" | tr / '\1' | sort | tr '\1' / >"$remarks.names"
  ) && printf '%s\n' "$first" >"$remarks.first"
}

# Writes the directory at $source to standard output as tar.gz; remarks go to the scratch folder, and beside them how it went:
# 0 for an archive, 1 for one that may have no end, anything else for none.
archive() {
  remarks=$scratch/remarks
  true >"$remarks" >"$remarks.first"
  echo 2 >"$remarks.status"
  real=$(cd -- "$source" 2>>"$remarks" && pwd -P && echo x) || return 1
  real=${real%"$NL"x}
  base=${real##*/} parent=${real%/*}
  [ -n "$base" ] || base=. parent=/
  # Patterns for what is no file, each character of a name standing for itself.
  # shellcheck disable=SC2016
  specials=$(cd -- "${parent:-/}" && find "./$base" \( -type s -o -type p -o -type b -o -type c \) -exec sh -c '
    remarks=$1
    shift
    for path; do
      path=${path#./}
      if [ -S "$path" ]; then what="a socket"; elif [ -p "$path" ]; then what="a named pipe"; else what="a device"; fi
      printf "%s: left out, it is %s\n" "$path" "$what" >>"$remarks"
      printf "%s" "$path" | tr "\n" "?" | sed "s/[][*\\\\]/\\\\&/g"
      echo
    done' sh "$remarks" {} + 2>/dev/null)
  # The spool inside the directory would be packed while it grows, and the worker's grant with it.
  inner=$(cd -- "$dir" 2>/dev/null && pwd -P) || inner=''
  case $inner in
    "${real%/}"/?*)
      inner=${inner#"${parent%/}"/}
      printf '%s: left out, it is the spool\n' "$inner" >>"$remarks"
      inner=$(printf '%s' "$inner" | sed 's/[][*?\\]/\\&/g')
      specials="$specials${specials:+$NL}$inner"
      ;;
    *) inner='' ;;
  esac
  # A name that starts with a dash is no option.
  case $base in -*) first=./$base ;; *) first=$base ;; esac
  set -- -C "${parent:-/}"
  gnu=''
  case $(tar --version 2>/dev/null) in
    *GNU*)
      # The same tree gives the same bytes wherever it is packed.
      gnu=1
      set -- "$@" --sort=name --owner=0 --group=0 --numeric-owner --format=gnu --hard-dereference --ignore-failed-read --anchored
      ;;
  esac
  if [ -n "$gnu" ]; then
    if [ -n "$specials" ]; then printf '%s\n' "$specials" >"$remarks.not" && set -- "$@" -X "$remarks.not"; fi
    set -- "$@" -- "$base"
  elif list_names && tar -cf /dev/null "$@" --no-recursion -T "$remarks.first" 2>/dev/null; then
    # Others sort nothing and know of different options, and refuse those with the status that a vanished file has, too.
    set -- "$@" --no-recursion -T "$remarks.names"
  elif [ -s "$remarks.first" ] && [ $(($(wc -c <"$remarks.names"))) -le 1000000 ] && tar -cf /dev/null "$@" --no-recursion "$first" 2>/dev/null; then
    IFS=$NL
    # shellcheck disable=SC2046
    set -- "$@" --no-recursion $(cat -- "$remarks.names")
    unset IFS
  elif [ -z "$inner" ]; then
    set -- "$@" "$first"
  else
    printf '%s: this tar cannot leave the spool out\n' "$base" >>"$remarks"
    return
  fi
  # Options for these in the environment are not meant for us.
  {
    TAR_OPTIONS='' tar -cf - "$@" 2>>"$remarks"
    status=$?
    # What changed or vanished while it was read is said but not fatal. GNU tar has 1 for just that, others for all errors.
    [ "$gnu-$status" != 1-1 ] || status=0
    echo $status >"$remarks.status"
  } | GZIP='' gzip -n || echo failed >&3
}

# Whether the staged archive has all its entries and the two empty blocks at its end.
is_whole() {
  gzip -dc <"$b_path" | TAR_OPTIONS='' tar -tf - >"$scratch/remarks.listed" 2>/dev/null && [ -s "$scratch/remarks.listed" ] &&
    [ -z "$(gzip -dc <"$b_path" | tail -c 1024 | tr -d '\0')" ]
}

# Whether a remark is about what may be missing in an archive (it changed, vanished or may not be read) or about no error at all.
is_bearable() {
  case $1 in
    *' we read it' | *'; padding with zeros' | *': left out, it is '*) ;;
    *': Permission denied' | *': Operation not permitted' | *': No such file or directory' | *': Not a directory') ;;
    *': Too many levels of symbolic links' | *': Symbolic link loop') ;;
    # What find, GNU tar and BusyBox say of other errors, and how errors of disks and of memory end elsewhere.
    'find: '* | *': Cannot '* | *': Read error at '* | *": can't open "*) return 1 ;;
    *'/output error' | *'I/O error' | *' memory' | *'open files'* | *'descriptors available' | *' file handle') return 1 ;;
  esac
}

# Packs the directory at $source into an unfinished file in folder $1, anew where tar gave up half-way: most of them do so when
# a file shrinks.
stage_archive() {
  attempt=1
  while :; do
    stage_stream "$1" archive || return 1
    read -r packed <"$scratch/remarks.status"
    [ "$packed" = 1 ] || break
    if is_whole; then packed=0 && break; fi
    [ $attempt -lt 3 ] || break
    attempt=$((attempt + 1))
    unstage
  done
  while IFS= read -r line; do
    is_bearable "$line" || packed=2
    line=${line#tar: }
    remark "${line#find: }"
  done <"$scratch/remarks"
  [ "$packed" != 0 ] || return 0
  unstage
  stage_error="cannot archive $source" source_failed=1
  return 1
}

# Copies the source into an unfinished file in folder $1.
stage() {
  case $kind in
    file) stage_file "$source" "$1" ;;
    pipe) stage_stream "$1" <"$source" ;;
    stream) stage_stream "$1" ;;
    directory)
      need_scratch || { cannot_write "${TMPDIR:-/tmp}" && return 1; }
      stage_archive "$1"
      ;;
  esac
}

# Removes the unfinished body.
unstage() { rm -f -- "$b_path" && forget "$b_path"; }

# Sets the r_ variables for what is about to be stored.
draft() {
  [ -n "$fresh" ] || now
  r_task_id=$task r_timestamp=$now_stamp r_created_at=$now_iso r_name=$name r_content_type=$type
  r_stored='[]' r_tiers='' r_error_s3='' r_error_http=''
  r_metadata=$metadata r_metadata_ascii=$metadata_ascii r_metadata_config=$metadata_config r_metadata_size=$metadata_size
}

# Makes the staged body a result: name, then record, each with its bytes safe on disk. Where that fails, stage_error says why.
commit() {
  claimed=''
  while :; do
    spool_name "$r_timestamp" "$r_name"
    if ! claimed_elsewhere; then
      claim "$folder/$r_file" && break
      [ -e "$folder/$r_file" ] || { refused "$folder" "$folder/$r_file"; return 1; }
    fi
    next_stamp "$r_timestamp"
    r_timestamp=$R
  done
  claimed=$r_file
  rename "$b_path" "$folder/$r_file" || { cannot_write "$folder"; return 1; }
  forget "$b_path"
  b_path=$folder/$r_file r_key=$task/$r_timestamp-$r_name
  mark
  save_record "$b_path"
}

# Takes back what is not going to be acknowledged as it is: it may be stored elsewhere, under another key.
withdraw() {
  [ -z "$claimed" ] || rm -f -- "$folder/$claimed.meta.json" "$folder/$claimed" "$folder/.pending/$claimed" 2>/dev/null
}

# For a spool that cannot be written: the result counts as stored only if a remote tier takes it now.
store_without_spool() {
  spooled=''
  failure=$stage_error
  if [ $kind = stream ] || [ $kind = pipe ]; then [ -z "$consumed" ]; fi && has_remote || {
    complain "All storage methods failed: local: $failure; no remote storage took it"
    return 1
  }
  remark "Local storage failed: $failure"
  if [ $kind = file ]; then
    b_path=$source b_sha=$($SHA256_BIG <"$source") && b_size=$(($(wc -c <"$source"))) || return 1
    b_sha=${b_sha%% *}
    if find_unchanged; then verdict=unchanged && return 0; fi
  else
    { need_scratch || { cannot_write "${TMPDIR:-/tmp}"; false; }; } && stage "$scratch" || {
      complain "All storage methods failed: local: $failure; $stage_error"
      return 1
    }
    if find_unchanged; then
      unstage
      verdict=unchanged
      return 0
    fi
  fi
  draft
  r_size=$b_size r_sha256=$b_sha
  while :; do
    spool_name "$r_timestamp" "$r_name"
    claim_elsewhere && break
    next_stamp "$r_timestamp"
    r_timestamp=$R
  done
  r_key=$task/$r_timestamp-$r_name
  deliver_committed "$require" || return 1
  if [ $kind = file ] && [ -n "$r_tiers" ]; then
    again=$($SHA256_BIG <"$source")
    [ "${again%% *}" = "$b_sha" ] || r_tiers='' e_message="$source changed while it was sent"
  fi
  [ $kind = file ] || unstage
  [ -n "$r_tiers" ] || { complain "All storage methods failed: local: $failure; ${e_message:-no remote storage took it}" && return 1; }
  note_elsewhere
  [ -n "$later" ] || may_tell
}

# Whether a result may be acknowledged, wherever it is stored; complains unless. Asked after it was noted where whoever takes stock
# looks, so that a conductor that seals later has it in its list, which may be complete without one that is not there.
may_tell() {
  set +f
  set -- "$dir/.worker/$task"/sealed-*
  set -f
  for seal; do
    fence_stands "$dir/.worker/$task/finishing-${seal##*/sealed-}" || continue
    complain "$task is being terminated, and the result may not be seen"
    return 1
  done
}

# Stores path $1 under the name asked for, or its own; the caller has set task, require and the metadata.
store() {
  if [ -n "${WORKER_RESULTS_ENCRYPTION_KEY-}" ] || [ -s "$dir/.worker/$task/encryption-key" ]; then
    complain 'results are to be encrypted, which needs Node.js 18 or later: nothing is stored'
    return 1
  fi
  inspect "$1" || return
  if [ -n "$has_name" ]; then given=$asked_name; else given=$default_name; fi
  [ -n "$given$has_name" ] || { complain 'content without a path needs a name' && return 2; }
  name=$given
  describe_name "$given"
  if [ $kind = directory ] && [ -z "$n_problem" ]; then
    case $given in *.tar.gz) ;; *) name=$given.tar.gz && describe_name "$name" ;; esac
  fi
  if [ -n "$n_problem" ]; then
    tame "$given"
    complain "name $n_problem (got \"$(printf '%.80s' "$R")\")"
    return 2
  fi
  type=$asked_type r_archive=''
  if [ $kind = directory ]; then r_archive=tar.gz fallback=application/gzip; else fallback=application/octet-stream; fi
  [ -n "$type" ] || { content_type_of "$name" $fallback && type=$R; }
  folder=$dir/$task spooled=1 consumed='' source_failed='' verdict=stored b_path=''
  stage_error="cannot write $folder"
  now
  if make_folder "$folder" && stage "$folder"; then
    if find_unchanged; then
      unstage
      verdict=unchanged
      return 0
    fi
    draft
    r_size=$b_size r_sha256=$b_sha
    if ! commit; then
      : # It has said why.
    elif [ -n "$later" ]; then
      release
      sync_folder && return
    else
      unsynced='' noted_key=$r_key
      may_tell || { release; return 1; }
      deliver_committed "$require" || { [ -z "$unsynced" ] || withdraw; return 1; }
      # Under another key it is another record, which was written later.
      [ "$r_key" = "$noted_key" ] || may_tell || return 1
      [ -z "$r_tiers" ] || return 0
      # A conductor drains its worker's own task: what lies here for another would go with the sandbox.
      if [ "$task" != "${WORKER_ID:-$task}" ] && [ -d "$dir/.worker/$WORKER_ID/bin" ]; then
        complain "no remote storage took the result, and only results of $WORKER_ID are safe in this spool"
        return 1
      fi
      return 0
    fi
    # The body is there, but it is a result only with its record, and both safe on disk.
    source=$b_path kind=file
    store_without_spool
    set -- $?
    withdraw
    return "$1"
  elif [ -n "$source_failed" ]; then
    complain "$stage_error"
    return 1
  elif [ -n "$b_path" ]; then
    unstage
  fi
  store_without_spool
}

print_result() { if [ -n "$json" ]; then write_record; else printf '%s\n' "$r_key"; fi; }

# Delivers what earlier calls left behind, as long as it goes well, but starts on nothing more after a minute.
catch_up() {
  [ -n "$spooled" ] || return 0
  set +f
  set -- "$folder/.pending"/*
  set -f
  [ -e "$1" ] || return 0
  now
  latest=$((now_epoch + 60))
  for marked; do
    r_file=${marked##*/}
    [ -f "$marked" ] && load_record "$folder/$r_file" || continue
    if [ -n "$r_tiers" ]; then rm -f -- "$marked" 2>/dev/null && continue; fi
    take || continue
    b_path=$folder/$r_file
    deliver_committed '' || continue
    [ -n "$r_tiers" ] && [ "$now_epoch" -lt $latest ] || return 0
  done
}

# Notes an exit status, if it is worse than those before.
worst=0
note() {
  case $worst$1 in 0? | 3[12] | 12) worst=$1 ;; esac
}

store_all() {
  delivered=''
  for path; do
    if [ -n "$has_name" ]; then start_progress "$path" "$asked_name"; else start_progress "$path" "$path"; fi
    store "$path"
    status=$?
    stop_progress
    if [ $status != 0 ]; then note $status && continue; fi
    print_result || { complain 'cannot write to standard output' && note 1; }
    if ! satisfied "$require"; then
      complain "$r_key is stored (${r_tiers:-local}) but not in $require"
      note 3
    elif [ -z "$r_tiers" ]; then
      mention "$r_key is only in the local spool so far"
    fi
    [ -z "$r_tiers" ] || delivered=1
  done
  [ -z "$delivered" ] || catch_up
  return $worst
}

# Reads metadata from the command line, or from a file, into the metadata variables.
read_metadata() {
  metadata='{}' metadata_ascii='{}' metadata_config='{}' metadata_size=2
  [ $# = 1 ] || return 0
  case $1 in
    @*)
      file=${1#@}
      case $file in /*) ;; *) file=./$file ;; esac
      [ -f "$file" ] && [ -r "$file" ] || die 1 "cannot read metadata from ${1#@}"
      # A NUL would end the text for most tools; a control character in its place is refused.
      eval "$( { tr '\0' '\1' <"$file"; echo; } | awk -v mode=metadata "$AWK")"
      ;;
    *) eval "$(printf '%s\n' "$1" | awk -v mode=metadata "$AWK")" ;;
  esac
  case ${problem-unreadable} in
    '') ;;
    'not an object') misused 'metadata must be a JSON object' ;;
    'too deep') misused 'metadata nests deeper than 100 levels' ;;
    *) misused "metadata is not JSON: ${problem-unreadable}" ;;
  esac
  [ "$r_metadata_size" -le 2097152 ] || misused 'metadata must be at most 2097152 bytes of JSON'
  metadata=$r_metadata metadata_ascii=$r_metadata_ascii metadata_config=$r_metadata_config metadata_size=$r_metadata_size
}

