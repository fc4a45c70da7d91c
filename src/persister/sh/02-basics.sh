# ---------------------------------------------------------------- small things

# Set while a line of progress stands on the terminal.
progress=''
remark() { printf '%spersist-result: %s\n' "${progress:+$ERASE}" "$1" >&2; }
mention() { [ -n "$quiet" ] || remark "$1"; }
complain() {
  last_complaint=$1
  [ -n "$hushed" ] || remark "$1"
}
die() { complain "$2"; exit "$1"; }
misused() { die 2 "$1 (persist-result --help tells more)"; }

# True while the owner of fence $1, a file, may still act on it.
fence_stands() {
  [ -e "$1" ] || return 1
  at='' up=''
  { read -r at <"$1"; read -r up _ </proc/uptime; } 2>/dev/null
  up=${up%%.*}
  case $at.$up in
    # Being renewed just now, or there was no room for more than its name.
    .* | *. | *[!0123456789.]*) [ -n "$(find "$1" -mmin -2 2>/dev/null)" ] ;;
    *) [ "$at" -le "$up" ] && [ $((up - at)) -lt 120 ] ;;
  esac
}

# Puts $1 into R with every $2 replaced by $3.
replace() {
  R='' rest=$1
  while :; do
    case $rest in
      *"$2"*) R=$R${rest%%"$2"*}$3 rest=${rest#*"$2"} ;;
      *) R=$R$rest && return ;;
    esac
  done
}

# Puts $1 into R as the inside of a quoted string of JSON or of curl's configuration; for text without control characters.
quote() {
  case $1 in
    *[\"\\]*) replace "$1" '\' '\\' && replace "$R" '"' '\"' ;;
    *) R=$1 ;;
  esac
}

# Puts text from elsewhere into R as one line of printable ASCII of limited length.
tame() {
  R=$1
  case $R in *[!"$PRINTABLE"]*) R=$(printf '%s' "$R" | LC_ALL=C tr -c ' -~' ' ') ;; esac
  while :; do case $R in *'  '*) replace "$R" '  ' ' ' ;; ' '*) R=${R# } ;; *' ') R=${R% } ;; *) break ;; esac; done
  [ ${#R} -le 500 ] || R=$(printf '%.500s' "$R")
}

# Puts the moment into now_iso, now_stamp (as in keys) and now_epoch (seconds). It counts as fresh until something slow is done.
fresh=''
now() {
  fresh=1
  now=$(date -u '+%Y-%m-%dT%H:%M:%S.%N %s' 2>/dev/null) || die 1 'cannot run date'
  now_epoch=${now##* }
  case ${now% *} in
    ????-??-??T??:??:??.[0-9][0-9][0-9]*) now=${now%"${now#????-??-??T??:??:??.???}"}Z ;;
    # No fractions of a second here.
    *) now=$(date -u '+%Y-%m-%dT%H:%M:%S').000Z ;;
  esac
  now_iso=$now
  IFS='-T:.'
  # shellcheck disable=SC2086
  set -- $now
  unset IFS
  now_stamp=$1$2$3-$4$5$6
}

# Puts the days since 1970 of year $1, month $2 and day $3 into R; numbers without leading zeros.
days_since_1970() {
  # 400 years, the calendar's period, keep what is divided positive.
  R=$(($1 + 400 - ($2 <= 2)))
  R=$((365 * R + R / 4 - R / 100 + R / 400 + (153 * ($2 + ($2 > 2 ? -3 : 9)) + 2) / 5 + $3 - 1 - 719468 - 146097))
}

# Puts the seconds since 1970 of a timestamp, YYYYMMDD-HHMMSS, into R.
stamp_to_epoch() {
  date=$((1${1%-*} - 100000000)) clock=$((1${1#*-} - 1000000))
  days_since_1970 $((date / 10000)) $((date / 100 % 100)) $((date % 100))
  R=$((R * 86400 + clock / 10000 * 3600 + clock / 100 % 100 * 60 + clock % 100))
}

# Puts the timestamp of a moment in seconds since 1970 into R.
epoch_to_stamp() {
  second=$(($1 + (719468 + 146097) * 86400))
  day=$((second / 86400)) second=$((second % 86400))
  era=$((day / 146097)) doe=$((day % 146097))
  yoe=$(((doe - doe / 1460 + doe / 36524 - doe / 146096) / 365))
  doy=$((doe - (365 * yoe + yoe / 4 - yoe / 100)))
  mp=$(((5 * doy + 2) / 153))
  month=$((mp < 10 ? mp + 3 : mp - 9))
  date=$((100000000 + (yoe + era * 400 - 400 + (month <= 2)) * 10000 + month * 100 + doy - (153 * mp + 2) / 5 + 1))
  clock=$((1000000 + second / 3600 * 10000 + second / 60 % 60 * 100 + second % 60))
  R=${date#1}-${clock#1}
}

# Puts the timestamp one second after $1 into R: where to look next when a key is taken.
next_stamp() {
  stamp_to_epoch "$1"
  epoch_to_stamp $((R + 1))
}

# Checks a result's name and puts what is needed of it into n_problem, n_json, n_uri, n_path and n_bytes.
describe_name() {
  case $1 in
    '' | . | .. | *[!"$ALNUM"._-]* | *.meta.json)
      n_problem='could not be examined'
      eval "$(PERSIST_RESULT_TEXT=$1 awk -v mode=name "$AWK" </dev/null)"
      ;;
    *)
      n_problem='' n_json=$1 n_uri=$1 n_path=$1 n_bytes=${#1}
      [ "$n_bytes" -le 255 ] || n_problem="must be at most 255 bytes of UTF-8, has $n_bytes"
      ;;
  esac
}

# Puts any text's forms for URLs and JSON into t_path, t_json and t_bytes.
describe_text() {
  case $1 in
    *[!"$ALNUM"._/-]*) t=$(PERSIST_RESULT_TEXT=$1 awk -v mode=name "$AWK" </dev/null) && eval "$(printf '%s' "$t" | sed 's/^n_/t_/')" ;;
    *) t_path=$1 t_json=$1 t_bytes=${#1} ;;
  esac
}

task_id_problem() {
  case $1 in
    '') R='must not be empty' ;;
    [!"$ALNUM"]*) R='must start with a letter or digit' ;;
    *[!"$ALNUM"._-]*) R='may contain only letters, digits, ".", "_" and "-"' ;;
    *) [ ${#1} -le 128 ] && return 1 || R="must be at most 128 characters, has ${#1}" ;;
  esac
}

# Puts a content type into R that suits a name, or $2 where its ending says nothing.
content_type_of() {
  R=$2
  case $1 in *.*) set -- "${1##*.}" ;; *) return ;; esac
  case $1 in *[ABCDEFGHIJKLMNOPQRSTUVWXYZ]*) set -- "$(printf '%s' "$1" | tr 'A-Z' 'a-z')" ;; esac
  case $1 in
    avif | bmp | gif | png | webp) R=image/$1 ;;
    bz2) R=application/x-bzip2 ;;
    css | csv) R="text/$1; charset=utf-8" ;;
    diff | patch) R='text/x-diff; charset=utf-8' ;;
    docx) R=application/vnd.openxmlformats-officedocument.wordprocessingml.document ;;
    gz | tgz) R=application/gzip ;;
    htm | html) R='text/html; charset=utf-8' ;;
    ipynb) R=application/x-ipynb+json ;;
    jpeg | jpg) R=image/jpeg ;;
    js | mjs) R='text/javascript; charset=utf-8' ;;
    json | pdf | toml | wasm | xml | zip) R=application/$1 ;;
    jsonl | ndjson) R=application/x-ndjson ;;
    log | txt) R='text/plain; charset=utf-8' ;;
    md) R='text/markdown; charset=utf-8' ;;
    mp3) R=audio/mpeg ;;
    mp4 | webm) R=video/$1 ;;
    parquet) R=application/vnd.apache.parquet ;;
    pptx) R=application/vnd.openxmlformats-officedocument.presentationml.presentation ;;
    py) R='text/x-python; charset=utf-8' ;;
    sh) R=application/x-sh ;;
    sqlite) R=application/vnd.sqlite3 ;;
    svg) R=image/svg+xml ;;
    tar) R=application/x-tar ;;
    ts) R='text/x-typescript; charset=utf-8' ;;
    tsv) R='text/tab-separated-values; charset=utf-8' ;;
    wav) R=audio/wav ;;
    xlsx) R=application/vnd.openxmlformats-officedocument.spreadsheetml.sheet ;;
    yaml | yml) R=application/yaml ;;
    zst) R=application/zstd ;;
  esac
}

check_content_type() {
  [ ${#1} -le 255 ] || misused 'content type must be at most 255 characters'
  base=${1%%;*}
  while :; do case $base in *' ') base=${base% } ;; *) break ;; esac; done
  case $1 in *[!"$PRINTABLE"]*) base='' ;; esac
  case $base in
    */*/* | /* | */ | *[!"$ALNUM"_!\#\$\&^.+/-]*) base='' ;;
    */*) ;;
    *) base='' ;;
  esac
  [ -n "$base" ] || misused 'content type must look like "type/subtype" in ASCII'
}

