# ---------------------------------------------------------------- progress

# Begins to show on a terminal how far storing $1, under label $2, is; nothing in the first second, and nowhere else.
start_progress() {
  [ -z "$quiet" ] && [ -t 2 ] && need_scratch 2>/dev/null || return 0
  progress=1 ERASE=$(printf '\r\033[K')
  (
    trap - EXIT HUP INT QUIT
    shown=''
    trap '[ -z "$shown" ] || printf "\r\033[K" >&2; exit' TERM
    size=''
    [ ! -f "$1" ] || size=$(($(wc -c <"$1")))
    pause=1
    # Each pause is waited for in a way that the signal to stop can end.
    while sleep $pause & wait $! && kill -0 $$; do
      shown=1 pause=0.5
      read_progress
      state=reading
      if [ "$sent" -gt 0 ]; then
        megabytes "$sent"
        state="sent $R MB"
        if [ "${size:-0}" -gt 0 ]; then
          [ "$sent" -le "$size" ] || sent=$size
          percent=$((100 * sent / size))
          megabytes "$size"
          state="$state of $R MB ($percent %)"
        fi
      fi
      printf '\r\033[Kpersist-result: %s: %s' "$2" "$state" >&2
    done
  ) </dev/null >/dev/null &
  monitor=$!
}

stop_progress() {
  [ -n "$progress" ] || return 0
  progress=''
  { kill "$monitor" && wait "$monitor"; } 2>/dev/null
  rm -f -- "$scratch/sent" "$scratch/sender"
}

# Puts $1 bytes into R as megabytes with one digit after the point.
megabytes() {
  R=$((($1 + 50000) / 100000))
  R=$((R / 10)).$((R % 10))
}

# Puts into sent how many bytes have gone: those of the parts that have arrived, or how far curl has read its file.
read_progress() {
  sent=0
  { read -r sent <"$scratch/sent"; } 2>/dev/null && return
  sender=none whole=0
  { read -r sender whole <"$scratch/sender"; } 2>/dev/null || return 0
  set +f
  for file in "/proc/$sender/fdinfo"/*; do
    { read -r _ position _ <"$file"; } 2>/dev/null || continue
    case $position in '' | *[!0123456789]*) ;; *) [ "$position" -le "$sent" ] || sent=$position ;; esac
  done
  set -f
  [ "$sent" = 0 ] || return 0
  # It closes the file at its end, while the last of it may still be on its way.
  { read -r _ position <"/proc/$sender/io"; } 2>/dev/null || return 0
  [ "$position" -lt "$whole" ] || sent=$whole
}

