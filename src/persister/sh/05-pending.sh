# ---------------------------------------------------------------- who delivers what

# Puts the start time of process $1 into R, empty when it is gone.
start_of() {
  R=''
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 0
  # The name in parentheses may hold anything, so count from its end.
  line=${line##*) }
  case $line in [ZX]*) return 0 ;; esac
  # shellcheck disable=SC2086
  set -- $line
  R=${20}
}

# Puts this process's description, as markers have it, into owner.
owner=''
need_owner() {
  [ -z "$owner" ] || return 0
  boot=''
  { read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null || :
  place=$boot${boot:+ $(readlink /proc/self/ns/pid 2>/dev/null)}
  start_of $$
  owner="{\"pid\":$$,\"start\":\"$R\",\"place\":\"$place\"}"
}

# Marks the result in file r_file as this process's to deliver.
mark() {
  [ -n "$spooled" ] || return 0
  need_owner
  [ -d "$folder/.pending" ] || mkdir -p -- "$folder/.pending" 2>/dev/null || :
  { printf '%s' "$owner" >"$folder/.pending/$r_file"; } 2>/dev/null
}

# Marks it as anybody's.
release() { [ -z "$spooled" ] || { printf '' >"$folder/.pending/$r_file"; } 2>/dev/null || :; }

# Puts the text of JSON string $2 of the marker's text $1 into R.
marker_field() {
  R=${1#*"\"$2\":"}
  R=${R#\"}
  R=${R%%[\",\}]*}
}

# Takes over a pending result, unless a living process is at work on it.
take() {
  need_owner
  marker=''
  { read -r marker <"$folder/.pending/$r_file"; } 2>/dev/null || :
  case $marker in
    *'"pid":'*'"start":'*'"place":'*)
      marker_field "$marker" place
      if [ "$R" = "$place" ]; then
        marker_field "$marker" pid
        case $R in '' | *[!0123456789]*) ;; *)
          start_of "$R"
          started=$R
          marker_field "$marker" start
          [ -z "$started" ] || [ "$R" != "$started" ] || return 1
          ;;
        esac
      elif [ -n "$(find "$folder/.pending/$r_file" -mmin -1 2>/dev/null)" ]; then
        # On another machine: alive if it said so within the last minute.
        return 1
      fi
      ;;
  esac
  # A full disk must not keep what is on it from being delivered; at worst another process sends the same bytes as well.
  mark || :
}

