
# ---------------------------------------------------------------- results that the spool had no room for

# Such a result has its key all the same, and the next one of its name may find room again: so these keys are noted where every
# process of this machine looks before it takes one. A store that lets its objects be overwritten would otherwise replace the
# one result by the other.
claims=${TMPDIR:-${TMP:-${TEMP:-/tmp}}}/persist-result-claims

# Whether such a result has the key of r_file.
claimed_elsewhere() {
  [ -d "$claims" ] || return 1
  sha256_text "$task/$r_file"
  [ -e "$claims/$R" ]
}

# Takes a key outside the spool, from others on this machine. The spool is asked last, so that of a result there and this one,
# side by side, one gives way.
claim_elsewhere() {
  sha256_text "$task/$r_file"
  claim_path=$claims/$R
  mkdir -p -- "$claims" 2>/dev/null
  claim "$claim_path" || [ ! -e "$claim_path" ] || return 1
  [ ! -e "$folder/$r_file" ]
}

# Notes what the result in the r_ variables is, which no spool tells of: whoever takes stock is to hear of it, and whoever stores
# its source again. Where that cannot be written, it is stored remotely and acknowledged as that.
note_elsewhere() {
  { write_record >"$claim_path.new" && mv -f -- "$claim_path.new" "$claim_path"; } 2>/dev/null || :
}

# Prints a line for every result of the task that was noted so, like list_task.
list_elsewhere() {
  [ -d "$claims" ] || return 0
  (cd -- "$claims" && find . ! -name . -prune -type f ! -name '*.new' -exec awk -v mode=notes -v task="$task" "$AWK" {} + 2>/dev/null)
}

# Prints a line for every result of the task, in key order, wherever it is.
take_stock() { { list_task; list_elsewhere; } | sort; }
