# ---------------------------------------------------------------- files of the spool

scratch=''
leftovers=''
asking=''
clean_up() {
  # A child that is killed before it drops this trap must not act on it.
  self=$$
  { read -r self _ </proc/self/stat; } 2>/dev/null || :
  [ "$self" = $$ ] || return
  trap '' HUP INT TERM
  [ -z "$progress" ] || stop_progress
  [ -z "$scratch" ] || rm -rf -- "$scratch"
  [ -z "$asking" ] || forget_wishes
  # One path to a line; none of ours has a line end in it unless the spool's own path does.
  [ -z "$leftovers" ] || { IFS=$NL; rm -f -- $leftovers; unset IFS; }
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# A folder of our own outside the spool, for what is not a result. Where there is none, said tells why.
need_scratch() {
  [ -z "$scratch" ] || return 0
  scratch=$scratch_path
  (umask 077 && mkdir -- "$scratch") 2>/dev/null || heard=$(umask 077 && mkdir -- "$scratch" 2>&1) || {
    said=$heard scratch=''
    return 1
  }
}

# Other machines may share the spool, so the process id is not enough.
unique=$$
{ read -r unique </proc/sys/kernel/random/uuid; } 2>/dev/null || unique=$(od -An -N8 -tx8 /dev/urandom | tr -d ' ')
scratch_path=${TMPDIR:-/tmp}/persist-result-$$-$unique
temporaries=0

# Puts the path of a new unfinished file in folder $1 into R; it is removed on exit unless it got its final name.
temporary() {
  temporaries=$((temporaries + 1))
  R=$1/.tmp-$$-$unique-$temporaries
}

keep_track() { leftovers=$leftovers$1$NL; }
forget() { replace "$leftovers" "$1$NL" ''; leftovers=$R; }

# Puts why a tool could not do something, out of what it said, into R as the end of a remark; nothing where it did not say.
reason() {
  case $said in
    *': '*) R=${said##*: } && R=": ${R%%"$NL"*}" ;;
    *) R='' ;;
  esac
}

# From a process of ours in the background, takes what a tool said to the one that waits for it.
leave_said() { need_scratch && printf '%s\n' "$said" >"$scratch/said"; }
recall_said() {
  [ ! -d "$scratch_path" ] || scratch=$scratch_path
  { read -r said <"$scratch_path/said"; } 2>/dev/null || said=''
}

# Says that nothing can be written to $1, and why, which is in said.
cannot_write() {
  reason
  stage_error="cannot write $1$R"
}

# Makes files and folders survive a crash of the machine, each by itself: to sync all there is would take as long as whatever
# else the machine is writing.
syncer=sync
sync_files() {
  case $syncer in
    fsync) said=$(fsync "$@" 2>&1) ;;
    perl) said=$(perl -MIO::Handle -e 'for (@ARGV) { open(FILE, "<", $_) && FILE->sync or $bad = 1, warn "$_: $!\n" } exit $bad' -- "$@" 2>&1) ;;
    *) said=$(sync "$@" 2>&1) ;;
  esac || {
    # Some network and FUSE file systems cannot sync a folder; there is then nothing to be had. A disk that fails says so once, and
    # whoever asks again is told that all is well.
    lines=$said$NL
    while [ -n "$lines" ]; do
      case ${lines%%"$NL"*} in *'nvalid argument' | *'ot supported' | *'ad file descriptor') ;; *) said=${lines%%"$NL"*} && return 1 ;; esac
      lines=${lines#*"$NL"}
    done
    for synced; do [ -d "$synced" ] || said=$(sync "$synced" 2>&1) || return 1; done
  }
  # Those that know of no arguments say so after they have synced everything.
  case $said in
    *ignor*) if command -v fsync >/dev/null 2>&1; then syncer=fsync; elif [ -n "$perl" ]; then syncer=perl; fi ;;
  esac
}

# Creates folder $1 with its parents, all of them safe on disk. One that is not is taken back, so that the next call makes it anew
# and does not trust in it.
make_folder() {
  [ -d "$1" ] && return
  made=$1 upper=${1%/*}
  while [ -n "$upper" ] && [ ! -d "$upper" ]; do upper=${upper%/*}; done
  said=$(mkdir -p -- "$made" 2>&1)
  if [ -d "$made" ]; then
    set --
    parent=$made
    until [ "$parent" = "$upper" ]; do parent=${parent%/*} && set -- "$@" "${parent:-/}"; done
    sync_files "$@" && return
    parent=$made
    until [ "$parent" = "$upper" ]; do rmdir -- "$parent" 2>/dev/null && parent=${parent%/*} || break; done
  fi
  cannot_write "$made"
  return 1
}

# Takes the name $1 if it is free. A redirection that fails must not end the shell, as it would with a special builtin.
claim() {
  set -C
  if true 2>/dev/null >"$1"; then set +C; return 0; fi
  set +C
  return 1
}

# Puts the name of a result's file in its task's folder into r_file.
spool_name() {
  if [ $((n_bytes + 26)) -le 255 ]; then r_file=$1-$2; else sha256_text "$2" && r_file=$1-'~'$R; fi
}

# Says why file $2 could not be created in folder $1; somebody else may have made it meanwhile.
refused() {
  said=$( { set -C && true >"$2" && rm -f -- "$2"; } 2>&1)
  cannot_write "$1"
}

# Gives file $1 the name $2. What mv says is kept from its second attempt: some shells need a process more to hear it.
rename() { mv -f -- "$1" "$2" 2>/dev/null || said=$(mv -f -- "$1" "$2" 2>&1); }

# Gives up file $2 in folder $1, which could not be written to its end, and says why: not every tool tells.
cut_short() {
  said=$( { dd if=/dev/zero bs=65536 count=1 >>"$2"; } 2>&1)
  rm -f -- "$2" && forget "$2"
  cannot_write "$1"
}

# Says whose fault it is that dd could not copy $1 into folder $2.
stage_failed() {
  case $copied in
    # The line that says it may come before dd's count or after it.
    *"$b_path"*)
      copied=${copied#*"$b_path"}
      copied=${copied%%"$NL"*}
      stage_error="cannot write $2: ${copied##*: }"
      ;;
    *)
      copied=${copied%%"$NL"*}
      stage_error="cannot read $1: ${copied##*: }" source_failed=1
      ;;
  esac
}

# Copies file $1 into an unfinished file in folder $2, synced; puts it into b_path, b_size and b_sha.
stage_file() {
  source_failed=''
  temporary "$2"
  b_path=$R
  claim "$b_path" || { refused "$2" "$b_path" && return 1; }
  keep_track "$b_path"
  copied=$(dd if="$1" of="$b_path" bs=1048576 count=$SMALL_BLOCKS conv=fsync 2>&1) || {
    stage_failed "$1" "$2" && return 1
  }
  # A block more may follow, also when they were short ones.
  blocks=${copied%% records in*}
  blocks=$((${blocks%+*} + ${blocks#*+}))
  if [ "$blocks" -ge $SMALL_BLOCKS ]; then
    fresh=''
    copied=$(dd if="$1" of="$b_path" bs=1048576 2>&1) || {
      stage_failed "$1" "$2" && return 1
    }
    { sync_files "$b_path" || { leave_said && false; }; } 2>/dev/null &
    b_sha=$($SHA256_BIG <"$b_path")
    wait $! || { recall_said && cannot_write "$2" && return 1; }
  else
    b_sha=$($SHA256 <"$b_path")
  fi
  b_sha=${b_sha%% *}
  copied=${copied##*records out"$NL"}
  b_size=${copied%% *}
  # Not every dd says it.
  case $b_size in *[!0123456789]* | '') b_size=$(($(wc -c <"$b_path"))) ;; esac
  case $b_size$b_sha in *[!0123456789abcdef]* | '') stage_error="cannot read back $b_path" && return 1 ;; esac
}

pass() { cat; }

# The same for what command $2 prints, or standard input, hashed as it comes.
stage_stream() {
  source_failed=''
  temporary "$1"
  b_path=$R
  claim "$b_path" || { refused "$1" "$b_path" && return 1; }
  keep_track "$b_path"
  consumed=1
  b_sha=$({ "${2:-pass}" | { tee "$b_path" 2>/dev/null || echo failed >&3; } | $SHA256_BIG; } 3>&1) || { stage_error="cannot write $1" && return 1; }
  case $b_sha in *failed*) cut_short "$1" "$b_path" && return 1 ;; esac
  b_sha=${b_sha%% *}
  sync_files "$b_path" || { cannot_write "$1" && return 1; }
  b_size=$(($(wc -c <"$b_path"))) || { stage_error="cannot read back $b_path" && return 1; }
}

# Writes the record of the r_ variables to file $1.
write_record() {
  quote "$r_content_type" && quoted_type=$R
  errors=''
  [ -z "$r_error_s3" ] || errors="\"s3\":$r_error_s3"
  [ -z "$r_error_http" ] || errors="$errors${errors:+,}\"http\":$r_error_http"
  archive=null
  [ -z "$r_archive" ] || archive=\"$r_archive\"
  printf '{"v":1,"task_id":"%s","timestamp":"%s","name":"%s","key":"%s/%s-%s","size":%s,"sha256":"%s","content_type":"%s","metadata":%s,"created_at":"%s","archive":%s,"stored":%s,"errors":{%s}}\n' \
    "$r_task_id" "$r_timestamp" "$n_json" "$r_task_id" "$r_timestamp" "$n_json" "$r_size" "$r_sha256" "$quoted_type" \
    "$r_metadata" "$r_created_at" "$archive" "$r_stored" "$errors"
}

# Replaces the record beside body $1; readers see the old one or the new, also after a crash of the machine. Which of the two that
# leaves is open until the folder is synced. Where that fails, stage_error says why.
save_record() {
  [ -n "$spooled" ] || return 0
  temporary "$folder"
  record=$R
  keep_track "$record"
  { write_record >"$record"; } 2>/dev/null || { cut_short "$folder" "$record"; return 1; }
  sync_files "$record" && rename "$record" "$1.meta.json" || { cannot_write "$folder"; return 1; }
  forget "$record"
}

# Reads the record beside body $1 into the r_ variables; fails unless both are whole and belong together.
load_record() {
  [ -f "$1" ] && [ -f "$1.meta.json" ] || return 1
  r_error_s3='' r_error_http='' problem=unreadable
  eval "$(awk -v mode=record -v task="$task" "$AWK" "$1.meta.json" 2>/dev/null)"
  [ -z "$problem" ] || return 1
  describe_name "$r_name"
  spool_name "$r_timestamp" "$r_name"
  [ "$r_file" = "${1##*/}" ] && [ "$(($(wc -c <"$1")))" = "$r_size" ]
}

