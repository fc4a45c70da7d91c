
# ---------------------------------------------------------------- results that the spool had no room for

# Such a result has its key all the same, and the next one of its name may find room again: so these keys are noted where every
# process of this machine looks before it takes one. A store that lets its objects be overwritten would otherwise replace the
# one result by the other.
claims=${TMPDIR:-${TMP:-${TEMP:-/tmp}}}/persist-result-claims
# In memory: the disk on which the spool has no room may be the only one.
more_claims=/dev/shm/persist-result-claims

# Whether such a result has the key of r_file.
claimed_elsewhere() {
  [ -d "$claims" ] || [ -d "$more_claims" ] || return 1
  sha256_text "$task/$r_file"
  [ -e "$claims/$R" ] || [ -e "$more_claims/$R" ]
}

# Takes a key outside the spool, from others on this machine. The spool is asked last, so that of a result there and this one,
# side by side, one gives way.
claim_elsewhere() {
  claimed_elsewhere && return 1
  sha256_text "$task/$r_file"
  claim_token=$R
  for claimed_in in "$claims" "$more_claims"; do
    mkdir -p -- "$claimed_in" 2>/dev/null
    claim "$claimed_in/$claim_token" && break
    [ ! -e "$claimed_in/$claim_token" ] || return 1
  done
  [ ! -e "$folder/$r_file" ]
}

# Notes what the result in the r_ variables is, which no spool tells of: whoever takes stock is to hear of it, and whoever stores
# its source again. Where that cannot be written, it is stored remotely and acknowledged as that.
note_elsewhere() {
  for claimed_in in "$claims" "$more_claims"; do
    { mkdir -p -- "$claimed_in" && write_record >"$claimed_in/$claim_token.new" && mv -f -- "$claimed_in/$claim_token.new" "$claimed_in/$claim_token"; } 2>/dev/null && return
  done
  :
}

# Prints a line for every result of the task that was noted so, like list_task.
list_elsewhere() {
  for claimed_in in "$claims" "$more_claims"; do
    [ ! -d "$claimed_in" ] ||
      (cd -- "$claimed_in" && find . ! -name . -prune -type f ! -name '*.new' -exec awk -v mode=notes -v task="$task" "$AWK" {} + 2>/dev/null)
  done
}

# Prints a line for every result of the task, in key order, wherever it is.
take_stock() { { list_task; list_elsewhere; } | sort; }
