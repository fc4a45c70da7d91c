#!/bin/sh
# persist-result without Node: keeps a worker's results where they outlive it. Needs a POSIX shell, curl, awk, tar, gzip and
# openssl or sha256sum. It behaves as persist-result.js does and shares the spool, the grant and the record with it.
#
# Three things hold throughout. Secrets travel through builtins and pipes, never through arguments or files. Text that others
# chose (names, metadata, answers) is never part of a command, only of quoted expansions. Every external command costs about
# a millisecond, so the path of a small file takes as few as it can.

VERSION=0.1.0
set -uf
unset CDPATH IFS
# Rules for letters and messages of the commands called must not vary; a supervised command gets its own back.
user_locale=${LC_ALL-}
LC_ALL=C
export LC_ALL

NL='
'
ALNUM=ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789
# All of printable ASCII, for bracket patterns: ranges mean other things in other locales.
# shellcheck disable=SC2016,SC1003
PRINTABLE=']!"#$%&'"'"'()*+,./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\^_`abcdefghijklmnopqrstuvwxyz{|}~ -'
EMPTY_SHA256=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
S3_ATTEMPTS=8
HTTP_ATTEMPTS=6
# Bodies up to here are copied in one go; bigger ones are hashed while the disk is still writing.
SMALL_BLOCKS=8

# ---------------------------------------------------------------- JSON and names, in awk

# shellcheck disable=SC2016
AWK='# Scans JSON in linear time with any awk: records end at quotes, so that each is either the inside of a string (or of a part
# of one) or what lies between strings. Bytes, not characters: always run with LC_ALL=C.
# mode: metadata (one object), record, records (many files), grant, name (from the environment, no input).
function fail(why) { if (problem == "") problem = why; bad = 1 }
function quoted(s,   n, i, parts, t) {
  if (index(s, "\047") == 0) return "\047" s "\047"
  n = split(s, parts, "\047"); t = "\047" parts[1]
  for (i = 2; i <= n; i++) t = t "\047\\\047\047" parts[i]
  return t "\047"
}
function say(name, value) { out[++outs] = name "=" quoted(value) "\n" }
# Streams a piece of raw JSON out; inside shell quotes unless the mode prints lines of JSON.
function emit(s,   n, i, parts) {
  if (rawsize <= CAP) { rawbuf = rawbuf s }
  rawsize += length(s)
  if (mode == "records" || index(s, "\047") == 0) { out[++outs] = s; return }
  n = split(s, parts, "\047"); out[++outs] = parts[1]
  for (i = 2; i <= n; i++) { out[++outs] = "\047\\\047\047"; out[++outs] = parts[i] }
}
function hex(s,   i, v) {
  v = 0
  for (i = 1; i <= 4; i++) v = v * 16 + index("0123456789abcdef", tolower(substr(s, i, 1))) - 1
  return v
}
function utf8(c) {
  # NUL cannot be passed on; the control character in its place is refused wherever it would matter.
  if (c < 128) return sprintf("%c", c == 0 ? 1 : c)
  if (c < 2048) return sprintf("%c%c", 192 + int(c / 64), 128 + c % 64)
  if (c < 65536) return sprintf("%c%c%c", 224 + int(c / 4096), 128 + int(c / 64) % 64, 128 + c % 64)
  return sprintf("%c%c%c%c", 240 + int(c / 262144), 128 + int(c / 4096) % 64, 128 + int(c / 64) % 64, 128 + c % 64)
}
# The text that the inside of a string stands for.
function decode(s,   n, e, i, t, c, u, v) {
  if (index(s, "\\") == 0) return s
  n = split(s, e, "\\"); t = e[1]
  for (i = 2; i <= n; i++) {
    if (e[i] == "") { t = t "\\" e[++i]; continue }
    c = substr(e[i], 1, 1)
    if (c == "u") {
      u = hex(substr(e[i], 2, 4))
      if (u >= 55296 && u <= 56319 && length(e[i]) == 5 && e[i + 1] ~ /^u[dD][c-fC-F]/) {
        v = hex(substr(e[i + 1], 2, 4))
        t = t utf8(65536 + (u - 55296) * 1024 + v - 56320) substr(e[++i], 6)
        continue
      }
      t = t utf8(u >= 55296 && u <= 57343 ? 65533 : u) substr(e[i], 6)
    } else t = t (c in plain ? plain[c] : c) substr(e[i], 2)
  }
  return t
}
# ASCII only, as headers want it; a space after a space is escaped, since signatures fold runs of them.
function ascii(s,   i, n, c, b, u, t, space) {
  n = length(s)
  for (i = 1; i <= n; i++) {
    c = substr(s, i, 1); b = c in ord ? ord[c] : 0
    if (b == 0) {
      if (c == " " && space) t = t "\\u0020"; else t = t c
      space = c == " "
      continue
    }
    space = 0
    if (b < 194) u = b
    else if (b < 224) { u = (b - 192) * 64 + ord[substr(s, i + 1, 1)] - 128; i++ }
    else if (b < 240) { u = (b - 224) * 4096 + (ord[substr(s, i + 1, 1)] - 128) * 64 + ord[substr(s, i + 2, 1)] - 128; i += 2 }
    else {
      u = (b - 240) * 262144 + (ord[substr(s, i + 1, 1)] - 128) * 4096 + (ord[substr(s, i + 2, 1)] - 128) * 64 + ord[substr(s, i + 3, 1)] - 128
      i += 3
      u -= 65536
      t = t sprintf("\\u%04x", 55296 + int(u / 1024)); u = 56320 + u % 1024
    }
    t = t sprintf("\\u%04x", u)
  }
  return t
}
# Quoted as the configuration of curl and JSON both have it.
function escaped(s,   n, i, c, t) {
  if (s !~ /["\\]/) return s
  n = length(s)
  for (i = 1; i <= n; i++) { c = substr(s, i, 1); t = t (c == "\"" || c == "\\" ? "\\" c : c) }
  return t
}
function unclean(s) {
  gsub(UTF8, "", s)
  return s ~ HIGH
}
# Pieces, because some regular expression engines take the square of the length.
function unclean_long(s,   i, k, n) {
  if (s !~ HIGH) return 0
  n = length(s)
  for (i = 1; i <= n; i += k) {
    k = 2048
    while (i + k <= n && k < 2052 && substr(s, i + k, 1) ~ /[\200-\277]/) k++
    if (unclean(substr(s, i, k))) return 1
  }
  return 0
}
function inside(s,   n, e, i, c) {
  odd = 0
  if (s ~ CONTROL) { fail("a raw control character in a string"); return }
  if (index(s, "\\")) {
    n = split(s, e, "\\")
    for (i = 2; i <= n; i++) {
      if (e[i] == "") { if (i == n) odd = 1; else i++; continue }
      c = substr(e[i], 1, 1)
      if (c == "u") {
        if (e[i] !~ /^u[0-9A-Fa-f][0-9A-Fa-f][0-9A-Fa-f][0-9A-Fa-f]/) { fail("a broken \\u escape"); return }
      } else if (index("/bfnrt", c) == 0) { fail("an unknown escape"); return }
    }
  }
  if (unclean_long(s)) { fail("bytes that are not UTF-8"); return }
  if (collect) text = text s
  if (raw) emit(s)
}
function value_begins() {
  if (want != "V" && want != "A") { fail("a value out of place"); return }
  if (depth == 0 && mode != "metadata") return
  if (raw) return
  if (mode == "metadata" && depth == 0) raw = "metadata"
  else if (mode == "record" && depth == 1 && (key[1] == "metadata" || key[1] == "stored")) raw = key[1]
  else if (mode == "record" && depth == 2 && key[1] == "errors" && (key[2] == "s3" || key[2] == "http")) raw = "error_" key[2]
  if (raw) { rawdepth = depth; rawbuf = ""; rawsize = 0; out[++outs] = "r_" raw "=\047" }
}
function value_ends() {
  want = depth ? "," : "end"
  if (raw && raw != 1 && depth == rawdepth) { out[++outs] = "\047\n"; raw_done(raw); raw = 0 }
}
function raw_done(name) {
  if (name != "metadata") return
  say("r_metadata_ascii", rawsize > CAP ? "" : ascii(rawbuf))
  say("r_metadata_config", rawsize > CAP ? "" : escaped(ascii(rawbuf)))
  say("r_metadata_size", rawsize)
}
function close_with(c) {
  if (depth == 0 || kind[depth] != c || (want != "," && want != (c == "}" ? "O" : "A"))) { fail("an unexpected " c); return }
  if (raw) emit(c)
  depth--
  value_ends()
}
function outside(s,   parts, n, i, p, c, t) {
  n = split(s, parts, ",")
  if (n == 0) return
  for (i = 1; i <= n && !bad; i++) {
    if (i > 1) {
      if (want != "," || depth == 0) { fail("an unexpected comma"); return }
      if (raw) emit(",")
      want = kind[depth] == "}" ? "K" : "V"
    }
    p = parts[i]
    while (p != "" && !bad) {
      c = substr(p, 1, 1)
      if (index(" \t\r\n", c)) { if (!match(p, /[^ \t\r\n]/)) break; p = substr(p, RSTART); continue }
      if (c == ":") {
        if (want != ":") { fail("an unexpected colon"); return }
        if (raw) emit(":")
        want = "V"; p = substr(p, 2)
      } else if (c == "{" || c == "[") {
        if (depth == 0 && c != "{") { fail("not an object"); return }
        value_begins(); if (bad) return
        if (raw) emit(c)
        depth++; kind[depth] = c == "{" ? "}" : "]"; want = c == "{" ? "O" : "A"; key[depth] = ""
        p = substr(p, 2)
      } else if (c == "}" || c == "]") { close_with(c); p = substr(p, 2) }
      else {
        if (match(p, /^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?/)) t = substr(p, 1, RLENGTH)
        else if (match(p, /^(true|false|null)/)) t = substr(p, 1, RLENGTH)
        else { fail("an unexpected character"); return }
        if (depth == 0) { fail("not an object"); return }
        value_begins(); if (bad) return
        if (raw) emit(t)
        scalar(t, c ~ /[tfn]/ ? t : "number")
        value_ends()
        p = substr(p, length(t) + 1)
      }
    }
  }
}
function quote() {
  if (!quoting) {
    if (want == "K" || want == "O") iskey = 1
    else { iskey = 0; if (depth == 0) { fail("not an object"); return } value_begins(); if (bad) return }
    quoting = 1; odd = 0; text = ""; collect = iskey ? mode != "metadata" && raw != "metadata" : wanted()
    if (raw) emit("\"")
    return
  }
  if (raw) emit("\"")
  if (odd) { if (collect) text = text "\""; return }
  quoting = 0
  if (iskey) { key[depth] = decode(text); want = ":" }
  else { if (collect) scalar(decode(text), "string"); value_ends() }
}
# Whether the text of a string matters; the rest are checked but not kept.
function wanted() {
  if (mode == "grant") return 1
  if (mode == "metadata") return 0
  if (depth == 1) return key[1] in fields
  return key[1] == "stored" && depth == 3 && key[3] == "tier"
}
function scalar(value, type,   path, i) {
  if (mode == "metadata") return
  if (mode == "grant") { grant_field(value, type); return }
  if (depth == 1 && key[1] in fields) { field[key[1]] = value; ftype[key[1]] = type }
  else if (depth == 3 && key[1] == "stored" && key[3] == "tier" && type == "string") tiers = tiers " " value
}
function grant_field(value, type,   path, i) {
  if (type == "null") return
  path = key[1]
  for (i = 2; i <= depth; i++) path = path "." key[i]
  if (value ~ CONTROL || value ~ /\177/) { fail("a control character in " path); return }
  if (depth == 4 && key[1] == "s3" && key[2] == "policy" && key[3] == "fields") {
    if (key[4] == "key" || key[4] == "file") return
    if (key[4] !~ /^[A-Za-z0-9-]+$/ || type != "string") { fail("a form field that cannot be sent"); return }
    names = names tolower(key[4]) " "
    form = form "form-string = \"" key[4] "=" escaped(value) "\"\n"
  } else if (path in gname && type == gtype[path]) say(gname[path], value)
}
function start() {
  bad = 0; problem = ""; depth = 0; want = "V"; quoting = 0; raw = mode == "records" ? 1 : 0; outs = 0; rawsize = CAP + 1; rawbuf = ""
  form = ""; names = " "; tiers = ""; split("", field); split("", ftype); split("", kind); split("", key)
}
function string(name) { return ftype[name] == "string" }
# Everything a reader of records insists on, so that one bad file cannot spoil a listing.
function record_whole() {
  return ftype["v"] == "number" && field["v"] == "1" && string("task_id") && string("timestamp") && string("name") && string("key") \
    && string("sha256") && string("content_type") && string("created_at") && ftype["size"] == "number" && field["size"] ~ /^[0-9]+$/ \
    && length(field["sha256"]) == 64 && field["sha256"] !~ /[^0-9a-f]/ && field["task_id"] == task \
    && (ftype["archive"] == "null" || string("archive") && field["archive"] == "tar.gz") \
    && field["timestamp"] ~ /^[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]-[0-9][0-9][0-9][0-9][0-9][0-9]$/ \
    && name_problem(field["name"]) == "" && field["key"] == field["task_id"] "/" field["timestamp"] "-" field["name"] \
    && field["content_type"] !~ CONTROL && field["created_at"] ~ /^[0-9TZ:.-]+$/
}
# Whether a record lies under its own name, beside a body of the right size.
function beside_its_body(file,   name) {
  name = field["timestamp"] "-" field["name"]
  if (length(name) > 245) name = substr(file, 1, 17) == field["timestamp"] "-~" && length(file) == 91 ? substr(file, 1, 81) : ""
  return file == name ".meta.json" && (name in size) && size[name] == field["size"] + 0
}
# Sizes of the files in the current folder; a name with a line end in it is none of ours.
function read_sizes(   line, i) {
  RS = "\n"
  while ((SIZES | getline line) > 0) { i = index(line, "./"); if (i) size[substr(line, i + 2)] = substr(line, 1, i - 1) + 0 }
  close(SIZES)
  RS = "\""
}
function finish(   i, name) {
  if (!bad && (depth != 0 || want != "end" || quoting)) fail("an unfinished value")
  if (!bad && (mode == "record" || mode == "records") && !record_whole()) fail("not a metadata record")
  if (mode == "records") {
    if (bad || !beside_its_body(substr(file, 3))) return
    print field["key"] "\t" tiers "\t" field["sha256"] "\t"
    for (i = 1; i <= outs; i++) print out[i]
    print "\n"
    return
  }
  if (bad) { print "problem=" quoted(problem) "\n"; return }
  print "problem=\n"
  for (i = 1; i <= outs; i++) print out[i]
  if (mode == "record") {
    for (name in fields) print "r_" name "=" quoted(ftype[name] == "null" ? "" : field[name]) "\n"
    print "r_tiers=" quoted(tiers) "\n"
  }
  if (mode == "grant") print "g_form=" quoted(form) "\ng_names=" quoted(names) "\n"
}
function name_problem(s,   rest) {
  if (s == "") return "must not be empty"
  if (s == "." || s == "..") return "must not be \".\" or \"..\""
  if (index(s, "/")) return "must be one path segment, without \"/\""
  if (unclean(s)) return "must be valid Unicode"
  if (s ~ CONTROL || s ~ /\177/ || s ~ /\302[\200-\237]/) return "must not contain control characters"
  if (length(s) >= 10 && substr(s, length(s) - 9) == ".meta.json") return "must not end in \".meta.json\""
  if (length(s) > 255) return "must be at most 255 bytes of UTF-8, has " length(s)
  return ""
}
# Percent-encodes every byte but letters, digits and those of keep.
function encode(s, keep,   i, n, c, t) {
  n = length(s)
  for (i = 1; i <= n; i++) {
    c = substr(s, i, 1)
    t = t (c ~ /[A-Za-z0-9]/ || index(keep, c) ? c : sprintf("%%%02X", ord[c]))
  }
  return t
}
function name_mode(   s, i) {
  s = ENVIRON["PERSIST_RESULT_TEXT"]
  for (i = 1; i < 128; i++) ord[sprintf("%c", i)] = i
  print "n_problem=" quoted(name_problem(s)) "\n"
  print "n_json=" quoted(escaped(s)) "\n"
  print "n_uri=" quoted(encode(s, "-_.!~*\047()")) "\n"
  print "n_path=" quoted(encode(s, "-_.~/")) "\n"
  print "n_bytes=" length(s) "\n"
}
BEGIN {
  ORS = ""; RS = "\""; CAP = 2048
  CONTROL = "["; for (i = 1; i < 32; i++) CONTROL = CONTROL sprintf("%c", i); CONTROL = CONTROL "]"
  # Not in one piece, since find would put file names there.
  SIZES = "find . ! -name . -prune -type f ! -name \"*.meta.json\" -exec stat -c \"%s%n\" {" "} +"
  HIGH = "[\200-\377]"
  UTF8 = "[\302-\337][\200-\277]|\340[\240-\277][\200-\277]|[\341-\354\356\357][\200-\277][\200-\277]|\355[\200-\237][\200-\277]"
  UTF8 = UTF8 "|\360[\220-\277][\200-\277][\200-\277]|[\361-\363][\200-\277][\200-\277][\200-\277]|\364[\200-\217][\200-\277][\200-\277]"
  for (i = 127; i < 256; i++) ord[sprintf("%c", i)] = i
  if (mode == "name") { name_mode(); exit }
  if (mode == "records") read_sizes()
  plain["b"] = "\b"; plain["f"] = "\f"; plain["n"] = "\n"; plain["r"] = "\r"; plain["t"] = "\t"
  n = split("v task_id timestamp name key size sha256 content_type created_at archive", list, " ")
  for (i = 1; i <= n; i++) fields[list[i]]
  n = split("v:v:number task_id:task_id:string expires_at:expires_at:string bucket:s3.bucket:string prefix:s3.prefix:string" \
    " url:s3.policy.url:string max_bytes:s3.policy.max_bytes:number" \
    " http:http.endpoint:string token:http.token:string", list, " ")
  for (i = 1; i <= n; i++) { split(list[i], one, ":"); gname[one[2]] = "g_" one[1]; gtype[one[2]] = one[3] }
}
FNR == 1 { if (NR > 1) finish(); start(); file = FILENAME }
bad { next }
FNR > 1 { quote() }
bad { next }
quoting { inside($0); next }
{ outside($0) }
END { if (mode != "name") { if (NR == 0) start(); finish() } }
'

# ---------------------------------------------------------------- small things

remark() { printf 'persist-result: %s\n' "$1" >&2; }
mention() { [ -n "$quiet" ] || remark "$1"; }
complain() {
  last_complaint=$1
  [ -n "$hushed" ] || remark "$1"
}
die() { complain "$2"; exit "$1"; }
misused() { die 2 "$1 (persist-result --help tells more)"; }

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
  now=$(date -u '+%Y-%m-%dT%H:%M:%S.%N %s')
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

# ---------------------------------------------------------------- digests

if command -v sha256sum >/dev/null 2>&1; then SHA256=sha256sum; else SHA256='openssl dgst -sha256 -r'; fi
# openssl uses the processor's own instructions, which for big bodies outweighs its slow start.
if command -v openssl >/dev/null 2>&1; then SHA256_BIG='openssl dgst -sha256 -r'; else SHA256_BIG=$SHA256; fi

# Puts the digest of text $1 into R, in hex.
sha256_text() {
  R=$(printf '%s' "$1" | $SHA256)
  R=${R%% *}
}

# Turns hex digits into the escapes of printf, each byte xored with $2, and puts them into R.
escape_bytes() {
  R='' hex=$1
  while [ -n "$hex" ]; do
    rest=${hex#??} byte=$((0x${hex%"$rest"} ^ $2)) hex=$rest
    R="$R\\0$((byte >> 6))$((byte >> 3 & 7))$((byte & 7))"
  done
}

# Puts the HMAC-SHA256 of text $2 under key $1 (hex, at most 64 bytes) into R, in hex. The key is only ever an operand of
# builtins: openssl would want it as an argument, for everyone to see.
hmac() {
  pad=$(((128 - ${#1}) / 2)) inner='' outer=''
  if [ "$pad" = 32 ]; then
    inner=$PAD_INNER outer=$PAD_OUTER
  else
    while [ "$pad" -gt 0 ]; do inner="$inner\\0066" outer="$outer\\0134" pad=$((pad - 1)); done
  fi
  escape_bytes "$1" 92
  outer=$R$outer
  escape_bytes "$1" 54
  R=$(printf '%b%s' "$R$inner" "$2" | $SHA256)
  escape_bytes "${R%% *}" 0
  R=$(printf '%b' "$outer$R" | $SHA256)
  R=${R%% *}
}
PAD_INNER='\0066\0066\0066\0066\0066\0066\0066\0066' PAD_OUTER='\0134\0134\0134\0134\0134\0134\0134\0134'
PAD_INNER=$PAD_INNER$PAD_INNER$PAD_INNER$PAD_INNER PAD_OUTER=$PAD_OUTER$PAD_OUTER$PAD_OUTER$PAD_OUTER

# ---------------------------------------------------------------- files of the spool

scratch=''
leftovers=''
clean_up() {
  # A child that is killed before it drops this trap must not act on it.
  self=$$
  { read -r self _ </proc/self/stat; } 2>/dev/null || :
  [ "$self" = $$ ] || return
  trap '' HUP INT TERM
  [ -z "$scratch" ] || rm -rf -- "$scratch"
  # One path to a line; none of ours has a line end in it unless the spool's own path does.
  [ -z "$leftovers" ] || { IFS=$NL; rm -f -- $leftovers; unset IFS; }
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# A folder of our own outside the spool, for what is not a result.
need_scratch() {
  [ -z "$scratch" ] || return 0
  scratch=${TMPDIR:-/tmp}/persist-result-$$-$unique
  (umask 077 && mkdir -- "$scratch") || { scratch='' && return 1; }
}

# Other machines may share the spool, so the process id is not enough.
unique=$$
{ read -r unique </proc/sys/kernel/random/uuid; } 2>/dev/null || unique=$(od -An -N8 -tx8 /dev/urandom | tr -d ' ')
temporaries=0

# Puts the path of a new unfinished file in folder $1 into R; it is removed on exit unless it got its final name.
temporary() {
  temporaries=$((temporaries + 1))
  R=$1/.tmp-$$-$unique-$temporaries
}

keep_track() { leftovers=$leftovers$1$NL; }
forget() { replace "$leftovers" "$1$NL" ''; leftovers=$R; }

make_folder() {
  [ -d "$1" ] && return
  made=$(mkdir -p -- "$1" 2>&1) && sync "${1%/*}" "$1" 2>/dev/null
  [ -d "$1" ] && return
  stage_error="cannot write $1: ${made##*: }"
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

# Says why nothing can be created in folder $1, in the system's words.
refused() {
  stage_error=$( { true >"$b_path"; } 2>&1)
  stage_error="cannot write $1: ${stage_error##*: }"
}

# Says whose fault it is that dd could not copy $1 into folder $2.
stage_failed() {
  copied=${copied%%"$NL"*}
  case $copied in
    *"$b_path"*) stage_error="cannot write $2: ${copied##*: }" ;;
    *) stage_error="cannot read $1: ${copied##*: }" source_failed=1 ;;
  esac
}

# Copies file $1 into an unfinished file in folder $2, synced; puts it into b_path, b_size and b_sha.
stage_file() {
  source_failed=''
  temporary "$2"
  b_path=$R
  claim "$b_path" || { refused "$2" && return 1; }
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
    sync "$b_path" &
    b_sha=$($SHA256_BIG <"$b_path")
    wait $! || { stage_error="cannot write $2" && return 1; }
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
  claim "$b_path" || { refused "$1" && return 1; }
  keep_track "$b_path"
  consumed=1
  b_sha=$({ "${2:-pass}" | { tee "$b_path" || echo failed >&3; } | $SHA256_BIG; } 3>&1) || { stage_error="cannot write $1" && return 1; }
  case $b_sha in *failed*) stage_error="cannot write $1" && return 1 ;; esac
  b_sha=${b_sha%% *}
  sync "$b_path" && b_size=$(($(wc -c <"$b_path"))) || { stage_error="cannot write $1" && return 1; }
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

# Replaces the record beside body $1; readers see the old one or the new.
save_record() {
  [ -n "$spooled" ] || return 0
  temporary "$folder"
  record=$R
  keep_track "$record"
  # The folder is synced with it, so that what was renamed before is safe by then.
  { write_record >"$record"; } 2>/dev/null && sync "$record" "$folder" 2>/dev/null && mv -f -- "$record" "$1.meta.json" && forget "$record"
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
  mark
}

# ---------------------------------------------------------------- HTTP

# Whole seconds out of $1, or $2.
seconds() {
  case $1 in
    '' | *[!0123456789.]* | *.*.* | .) R=$2 ;;
    *.*) R=$((${1%%.*} + 1)) ;;
    *) R=$1 ;;
  esac
  [ "$R" -gt 0 ] || R=$2
}
seconds "${WORKER_RESULTS_STALL_SECONDS-}" 30
stall_s=$R
connect_s=$((stall_s < 10 ? stall_s : 10))
seconds "${WORKER_RESULTS_DEADLINE_SECONDS-}" 120
deadline_s=$R

# Takes URL $1 apart into u_base (scheme and host), u_host (as in the Host header) and u_path (without query).
take_apart() {
  case $1 in
    *[!"$PRINTABLE"]* | *[\ \"\\]*) return 1 ;;
    http://?* | https://?*) ;;
    *) return 1 ;;
  esac
  u_host=${1#*://}
  u_path=${u_host#"${u_host%%[/?#]*}"}
  u_host=${u_host%%[/?#]*}
  u_host=${u_host##*@}
  u_path=${u_path%%[?#]*}
  case $1 in http:*) u_host=${u_host%:80} ;; *) u_host=${u_host%:443} ;; esac
  u_base=${1%%://*}://$u_host
}

# Starts a request's configuration for curl with its URL. It reaches curl on standard input, so no secret in it shows.
request_to() {
  quote "$1"
  config="url = \"$R\"$NL"
}

# Adds a header whose value $3 is quoted already, where given, or has no need to be.
add_header() {
  if [ $# = 2 ]; then quote "$2" && set -- "$1" "$2" "$R"; fi
  config="${config}header = \"$1: $3\"$NL"
}

# Sends the request in config with further arguments for curl. Gives the answer's head and body in reply and its status in
# http_status; fails when there was no whole answer, with why in curl_error.
send() {
  [ -n "$fresh" ] || now
  left=$((give_up_at - now_epoch))
  [ "$left" -gt 0 ] || left=1
  fresh=''
  reply=$(printf '%s' "$config" | curl -q -K - -gsSD - --path-as-is --proto =http,https --connect-timeout "$connect_s" \
    --speed-limit 1 --speed-time "$stall_s" --max-time "$left" -w '\n#persist-result %{http_code}\n' "$@" 2>&1)
  curl_status=$?
  http_status=${reply##*#persist-result }
  http_status=${http_status%%[!0123456789]*}
  [ ${#http_status} = 3 ] || http_status=000
  if [ $curl_status = 0 ]; then reply=${reply%"$NL"#persist-result*} && return 0; fi
  # A refusal stands even when the connection broke while we were still sending.
  case $http_status in [45]??) return 0 ;; esac
  curl_error=${reply##*curl: }
  curl_error=${curl_error%%"$NL"*}
  case $curl_error in '('*) ;; *) curl_error="($curl_status) curl failed" ;; esac
  return 1
}

# Puts the value of the answer's last header of a name (lower case) into R.
answer_header() {
  R=$(printf '%s\n' "$reply" | tr -d '\r' | awk -v name="$1" '
    index($0, ":") > 1 && tolower(substr($0, 1, index($0, ":") - 1)) == name { value = substr($0, index($0, ":") + 1); sub(/^[ \t]+/, "", value) }
    END { print value }')
}

# Puts the text of the first element of a name in the answer into R.
answer_element() {
  case $reply in *"<$1>"*"</$1>"*) R=${reply#*"<$1>"} R=${R%%"</$1>"*} ;; *) R='' ;; esac
  case $R in *'&'*) replace "$R" '&quot;' '"' && replace "$R" '&lt;' '<' && replace "$R" '&gt;' '>' && replace "$R" '&apos;' "'" && replace "$R" '&amp;' '&' ;; esac
}

# What a failure to talk at all means. Every failure is described by e_code, e_message, e_retry and e_wait.
network_failure() {
  e_code=UNAVAILABLE e_retry=1 e_wait=0
  case $curl_status in
    28) e_code=TIMEOUT ;;
    1 | 2 | 3 | 4 | 23 | 26 | 27 | 43 | 58 | 59 | 60 | 77 | 83 | 90 | 91) e_retry='' ;;
    127) e_retry='' curl_error='(127) curl is not installed' ;;
  esac
  tame "${curl_error#*) }"
  e_message=$R
}

retry_after() {
  e_wait=0
  case $reply in
    *[Rr]etry-[Aa]fter:*)
      answer_header retry-after
      case $R in '' | *[!0123456789]* | ????*) ;; *) e_wait=$((R < 20 ? R : 20)) ;; esac
      ;;
  esac
}

# What an S3 answer that is no success means; codes as in https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
s3_failure() {
  answer_element Code
  s3_code=$R
  answer_element Message
  s3_message=$R
  e_retry=''
  case $s3_code in
    AccessDenied | SignatureDoesNotMatch | InvalidAccessKeyId | InvalidToken | RequestTimeTooSkewed) e_code=ACCESS_DENIED ;;
    ExpiredToken | ExpiredRequest | TokenRefreshRequired) e_code=EXPIRED ;;
    NoSuchBucket | NoSuchKey) e_code=NOT_FOUND ;;
    PreconditionFailed) e_code=EXISTS ;;
    BadDigest | XAmzContentSHA256Mismatch | XAmzContentChecksumMismatch) e_code=INTEGRITY e_retry=1 ;;
    EntityTooLarge) e_code=TOO_LARGE ;;
    NotImplemented) e_code=UNSUPPORTED ;;
    QuotaExceeded) e_code=NO_SPACE ;;
    ConditionalRequestConflict | OperationAborted | IncompleteBody | RequestTimeout | InternalError | ServiceUnavailable | SlowDown | Throttling | ThrottlingException | RequestLimitExceeded)
      e_code=UNAVAILABLE e_retry=1
      ;;
    *)
      case $http_status in
        401 | 403) e_code=ACCESS_DENIED ;;
        404) e_code=NOT_FOUND ;;
        412) e_code=EXISTS ;;
        413) e_code=TOO_LARGE ;;
        501) e_code=UNSUPPORTED ;;
        408 | 409 | 429 | 5??) e_code=UNAVAILABLE e_retry=1 ;;
        *) e_code=PROTOCOL ;;
      esac
      ;;
  esac
  # RGW and AWS both answer an expired policy with AccessDenied; only the words tell.
  case $e_code$s3_message in ACCESS_DENIED*[Ee]xpired*) e_code=EXPIRED ;; esac
  hint=''
  case $http_status$s3_code in
    301* | *AuthorizationHeaderMalformed) answer_header x-amz-bucket-region && hint=" (the bucket is in ${R:-another region})" ;;
  esac
  tame "${s3_code:-HTTP $http_status}${s3_message:+: $s3_message}$hint ($1)"
  e_message=$R
  retry_after
}

# ---------------------------------------------------------------- S3 with credentials

# Says where a bucket is: its own host at AWS, a folder at any other endpoint or where its name has dots (TLS).
s3_place() {
  describe_text "$1"
  if [ -n "$3" ]; then
    take_apart "$3" || return 1
    s3_base=$u_base s3_host=$u_host s3_path=${u_path%/}/$t_path
    return
  fi
  s3_host=s3.$2.amazonaws.com s3_path=''
  case $2 in cn-*) s3_host=$s3_host.cn ;; esac
  case $1 in
    *[!abcdefghijklmnopqrstuvwxyz0123456789-]*) s3_path=/$t_path ;;
    *) s3_host=$1.$s3_host ;;
  esac
  s3_base=https://$s3_host
}

# Puts the signature of a canonical request into R, for the moment in stamp and the scope in scope.
sign() {
  if [ -n "$perl" ]; then
    # The environment has the secret already. One process in place of eleven, where perl is there.
    R=$(printf '%s' "$1" | perl -MDigest::SHA=sha256_hex,hmac_sha256,hmac_sha256_hex -e '
      undef $/;
      my ($stamp, $scope) = @ARGV;
      my $key = "AWS4" . $ENV{AWS_SECRET_ACCESS_KEY};
      $key = hmac_sha256($_, $key) for split m(/), $scope;
      print hmac_sha256_hex(join("\n", "AWS4-HMAC-SHA256", $stamp, $scope, sha256_hex(<STDIN>)), $key)' "$stamp" "$scope" 2>/dev/null)
    [ ${#R} != 64 ] || return 0
    # Not every perl has its libraries.
    perl=''
  fi
  if [ "$signing_scope" != "$scope" ]; then
    R=$(printf 'AWS4%s' "$AWS_SECRET_ACCESS_KEY" | od -An -v -tx1 | tr -d ' \n')
    # A key longer than a block stands for its digest.
    [ ${#R} -le 128 ] || { R=$(printf 'AWS4%s' "$AWS_SECRET_ACCESS_KEY" | $SHA256) && R=${R%% *}; }
    hmac "$R" "$day"
    hmac "$R" "$s3_region"
    hmac "$R" s3
    hmac "$R" aws4_request
    signing_key=$R signing_scope=$scope
  fi
  sha256_text "$1"
  hmac "$signing_key" "AWS4-HMAC-SHA256$NL$stamp$NL$scope$NL$R"
}
signing_scope='' perl=''
! command -v perl >/dev/null 2>&1 || perl=1
skew_s=0

# Sends a signed request: method, encoded object key (may be empty), query, digest of the body, then arguments for curl.
# s3_type, s3_new and the lines of s3_meta (and their quoted twin) become headers.
# https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
s3_send_once() {
  method=$1 path=$s3_path/$2 query=$3 digest=$4
  shift 4
  [ -n "$fresh" ] || now
  R=$now_stamp
  [ "$skew_s" = 0 ] || epoch_to_stamp $((now_epoch + skew_s))
  day=${R%-*}
  stamp=${day}T${R#*-}Z
  request_to "$s3_base$path${query:+?}$query"
  headers='' names=''
  if [ -n "$s3_type" ]; then
    headers="content-type:$s3_type$NL" names='content-type;'
    add_header content-type "$s3_type"
  fi
  headers="${headers}host:$s3_host$NL" names=${names}host
  if [ -n "$s3_new" ]; then
    headers="${headers}if-none-match:*$NL" names="$names;if-none-match"
    add_header if-none-match '*'
  fi
  headers="${headers}x-amz-content-sha256:$digest${NL}x-amz-date:$stamp$NL$s3_meta" names="$names;x-amz-content-sha256;x-amz-date$s3_meta_names"
  add_header x-amz-content-sha256 "$digest"
  add_header x-amz-date "$stamp"
  config=$config$s3_meta_config
  if [ -n "${AWS_SESSION_TOKEN-}" ]; then
    headers="${headers}x-amz-security-token:$AWS_SESSION_TOKEN$NL" names="$names;x-amz-security-token"
    add_header x-amz-security-token "$AWS_SESSION_TOKEN"
  fi
  scope=$day/$s3_region/s3/aws4_request
  sign "$method$NL$path$NL$query$NL$headers$NL$names$NL$digest"
  add_header authorization "AWS4-HMAC-SHA256 Credential=$AWS_ACCESS_KEY_ID/$scope,SignedHeaders=$names,Signature=$R"
  send "$@"
}

# Puts the moment of a Date header, "Mon, 23 Nov 2026 06:47:50 GMT", into R in seconds since 1970.
http_date() {
  # shellcheck disable=SC2086
  set -- $1
  [ $# = 6 ] || return 1
  case $2$4 in *[!0123456789]* | ?????? | ???????*) [ ${#2} = 2 ] && [ ${#4} = 4 ] || return 1 ;; esac
  case $5 in [0-2][0-9]:[0-5][0-9]:[0-6][0-9]) ;; *) return 1 ;; esac
  case $3 in
    Jan) R=01 ;; Feb) R=02 ;; Mar) R=03 ;; Apr) R=04 ;; May) R=05 ;; Jun) R=06 ;;
    Jul) R=07 ;; Aug) R=08 ;; Sep) R=09 ;; Oct) R=10 ;; Nov) R=11 ;; Dec) R=12 ;;
    *) return 1 ;;
  esac
  set -- "$4$R$2" "${5%%:*}" "${5#*:}"
  case $1 in *[!0123456789]*) return 1 ;; esac
  stamp_to_epoch "$1-$2${3%:*}${3#*:}"
}

# Sends a request, and once more when the store's clock explains its refusal.
s3_send() {
  s3_send_once "$@" || return
  [ "$http_status" = 403 ] || return 0
  answer_element Code
  # The answer to a HEAD has no body to say RequestTimeTooSkewed in.
  case $R in '' | RequestTimeTooSkewed | AccessDenied) ;; *) return 0 ;; esac
  answer_element ServerTime
  if stamp_of_iso "$R"; then
    stamp_to_epoch "${R%??????}-${R#????????}"
  else
    answer_header date
    http_date "$R" || return 0
  fi
  theirs=$R
  now
  change=$((theirs - now_epoch - skew_s))
  [ ${change#-} -ge 300 ] || return 0
  skew_s=$((theirs - now_epoch))
  s3_send_once "$@"
}

# Adds user metadata to the next request; names in the order of the alphabet. Its value's quoted form may be given.
s3_meta=''
add_meta() {
  config=$s3_meta_config
  if [ $# = 3 ]; then add_header "x-amz-meta-$1" "$2" "$3"; else add_header "x-amz-meta-$1" "$2"; fi
  s3_meta_config=$config
  s3_meta="${s3_meta}x-amz-meta-$1:$2$NL" s3_meta_names="$s3_meta_names;x-amz-meta-$1"
}
no_meta() { s3_meta='' s3_meta_names='' s3_meta_config='' s3_type='' s3_new=''; }

# The user metadata of the record in the r_ variables; without "metadata" where S3's limit leaves no room for it.
fit_metadata() {
  sidecar=''
  used=$((7 + ${#r_task_id} + 4 + ${#n_uri} + 6 + 64 + 10 + ${#r_created_at} + 8))
  [ -z "$r_archive" ] || used=$((used + 7 + ${#r_archive}))
  if [ -z "$r_metadata_ascii" ] || [ $((used + ${#r_metadata_ascii})) -gt 2048 ]; then sidecar=1; fi
}

# Whether the very object is there already: 0 yes, 1 no, 2 for a failure.
s3_is_there() {
  no_meta
  s3_send HEAD "$1" '' $EMPTY_SHA256 -I || { network_failure && return 2; }
  case $http_status in
    404) return 1 ;;
    200) ;;
    *) s3_failure 'looking at the object that has this key' && return 2 ;;
  esac
  answer_header x-amz-meta-sha256
  sha=$R
  answer_header x-amz-meta-created-at
  if [ "$sha" = "$r_sha256" ] && { [ -z "$R" ] || [ "$R" = "$r_created_at" ]; }; then return 0; fi
  e_code=EXISTS e_retry='' e_message="another result has the key $r_key"
  return 2
}

s3_conditional=1

# One attempt at storing file $1 as encoded object key $2 with content type $3 and digest $4, under a name that must be free.
s3_put() {
  if [ -z "$s3_conditional" ]; then
    s3_is_there "$2"
    case $? in 0) return 0 ;; 2) return 1 ;; esac
  fi
  no_meta
  s3_type=$3 s3_new=$s3_conditional
  if [ "$5" = record ]; then
    add_meta created-at "$r_created_at"
    add_meta sha256 "$r_sha256"
  else
    [ -z "$r_archive" ] || add_meta archive "$r_archive"
    add_meta created-at "$r_created_at"
    [ -n "$sidecar" ] || add_meta metadata "$r_metadata_ascii" "$r_metadata_config"
    add_meta name "$n_uri"
    add_meta sha256 "$r_sha256"
    add_meta task-id "$r_task_id"
  fi
  s3_send PUT "$2" '' "$4" -T "$1" || { network_failure && return 1; }
  [ "$http_status" != 200 ] || return 0
  s3_failure PUT
  case $e_code in
    UNSUPPORTED)
      # Some stores have no conditional writes.
      [ -n "$s3_conditional" ] || return 1
      s3_conditional='' e_retry=1
      ;;
    EXISTS)
      message=$e_message
      s3_is_there "$2"
      case $? in
        0) return 0 ;;
        # Refused as taken, yet not there: another writer is at it or gave up just now.
        1) e_code=UNAVAILABLE e_retry=1 e_wait=0 e_message=$message ;;
      esac
      ;;
  esac
  return 1
}

# Where the record in the r_ variables goes in the bucket: prefix $1, bucket $2. Puts it into object (encoded) and location.
object_place() {
  describe_text "$1${1:+/}"
  bytes=$((t_bytes + ${#r_task_id} + 17 + n_bytes))
  if [ $bytes -gt 1024 ]; then
    e_code=INVALID_OPTION e_retry='' e_message="key with prefix must be at most 1024 bytes of UTF-8, has $bytes"
    return 1
  fi
  object=$t_path$r_task_id/$r_timestamp-$n_path
  object_key=$1${1:+/}$r_key
  location=s3://$2/$object_key
}

trim_slashes() {
  R=$1
  while :; do case $R in /*) R=${R#/} ;; */) R=${R%/} ;; *) return ;; esac; done
}

s3_with_credentials() {
  s3_region=${AWS_REGION:-${AWS_DEFAULT_REGION:-us-east-1}}
  s3_place "$WORKER_RESULTS_S3_BUCKET" "$s3_region" "${AWS_ENDPOINT_URL_S3:-${AWS_ENDPOINT_URL-}}" || {
    e_code=INVALID_OPTION e_retry='' e_message='S3 endpoint is not a URL that starts with http:// or https://'
    return 1
  }
  trim_slashes "${WORKER_RESULTS_S3_PREFIX:-results}"
  object_place "$R" "$WORKER_RESULTS_S3_BUCKET" || return 1
  fit_metadata
  if [ -n "$sidecar" ]; then
    side_record || return 1
    repeat $S3_ATTEMPTS s3_put "$side" "$object.meta.json" application/json "$side_sha" record || return 1
  fi
  repeat $S3_ATTEMPTS s3_put "$b_path" "$object" "$r_content_type" "$r_sha256" result
}

# Writes the record to a file of its own, which nobody replaces while it is being sent.
side_record() {
  side=''
  need_scratch && side=$scratch/record && write_record >"$side" && side_sha=$($SHA256 <"$side") && side_sha=${side_sha%% *} && return 0
  e_code=NO_SPACE e_retry='' e_message='no room for a temporary file'
  return 1
}

# Repeats what fails with e_retry, after waits that double, with jitter: attempts, then the command.
repeat() {
  attempts=$1 attempt=1 wait_ms=150
  shift
  until "$@"; do
    [ -n "$e_retry" ] && [ $attempt -lt "$attempts" ] || return 1
    now
    jitter=$(od -An -N2 -tu2 /dev/urandom)
    pause=$((wait_ms / 2 + wait_ms * jitter / 131072))
    [ $((e_wait * 1000)) -le $pause ] || pause=$((e_wait * 1000))
    [ $((now_epoch + pause / 1000)) -lt $give_up_at ] || return 1
    fraction=$((1000 + pause % 1000))
    # Not every sleep knows fractions.
    sleep $((pause / 1000)).${fraction#1} 2>/dev/null || sleep $((pause / 1000 + 1))
    fresh=''
    attempt=$((attempt + 1)) wait_ms=$((wait_ms < 4000 ? wait_ms * 2 : 8000))
  done
}

# ---------------------------------------------------------------- S3 with a grant

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
    escape_bytes "$5" 0
    add_field x-amz-checksum-sha256 "$(printf '%b' "$R" | { base64 2>/dev/null || openssl base64; })"
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

s3_with_grant() {
  trim_slashes "$g_prefix"
  object_place "$R" "$g_bucket" || return 1
  fit_metadata
  if [ -n "$sidecar" ]; then
    side_record || return 1
    repeat $S3_ATTEMPTS s3_post "$side" $(($(wc -c <"$side"))) "$object_key.meta.json" application/json "$side_sha" record || return 1
  fi
  repeat $S3_ATTEMPTS s3_post "$b_path" "$r_size" "$object_key" "$r_content_type" "$r_sha256" result
}

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
    *) e_code=PROTOCOL ;;
  esac
  said=${reply##*"$CR$NL$CR$NL"}
  [ -z "$http_token" ] || { replace "$said" "$http_token" … && said=$R; }
  tame "$said"
  e_message="HTTP $http_status${R:+: }$(printf '%.160s' "$R")"
  retry_after
}
CR=$(printf '\r')

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

# ---------------------------------------------------------------- tiers

# Reads the grant that is good for longest of those in the environment, its file and the task's own folder into the g_
# variables: a conductor that extends a worker's time writes a fresh file, while the environment stays as it was.
grant_read=''
read_grant() {
  grant='' g_best=0
  [ -z "${WORKER_RESULTS_GRANT-}" ] || consider_grant WORKER_RESULTS_GRANT "$WORKER_RESULTS_GRANT"
  own=$dir/.worker/$task/grant.json
  given=${WORKER_RESULTS_GRANT_FILE-}
  [ "$given" != "$own" ] || given=''
  for path in "$given" "$own"; do
    case $path in '') continue ;; /*) ;; *) path=./$path ;; esac
    if [ -r "$path" ]; then
      consider_grant "$path"
    elif [ "$path" != "$own" ] || [ -e "$path" ]; then
      remark "cannot read the grant $path"
    fi
  done
  forget_grant
  [ -z "$grant" ] || eval "$grant"
  grant_read=1
}

forget_grant() { g_v='' g_task_id='' g_expires_at='' g_bucket='' g_prefix='' g_url='' g_max_bytes='' g_http='' g_token='' g_form='' g_names=''; }

consider_grant() {
  forget_grant
  problem=unreadable
  if [ $# = 2 ]; then parsed=$(printf '%s\n' "$2" | awk -v mode=grant "$AWK"); else parsed=$(awk -v mode=grant "$AWK" "$1"); fi
  eval "$parsed"
  if [ -n "$problem" ] || [ "$g_v" != 1 ] || [ -z "$g_task_id" ] || ! stamp_of_iso "$g_expires_at"; then
    remark "the grant in $1 is malformed and not used"
  elif [ "$g_task_id" = "$task" ] && [ "$R" -gt "$g_best" ]; then
    grant=$parsed g_best=$R
  fi
}

need_grant() { [ -n "$grant_read" ] || read_grant; }

# What reaches a tier: credentials, grant, broken (with the failure described) or nothing.
s3_means() {
  if [ -n "${WORKER_RESULTS_S3_BUCKET-}" ] && [ -n "${AWS_ACCESS_KEY_ID-}" ] && [ -n "${AWS_SECRET_ACCESS_KEY-}" ]; then R=credentials && return; fi
  need_grant
  R=''
  if [ -n "$g_url" ] && [ -n "$g_bucket" ] && [ -n "$g_max_bytes" ]; then
    case $g_max_bytes in *[!0123456789]*) ;; *) R=grant && return ;; esac
  fi
  if [ -n "$g_bucket" ]; then
    R=broken e_code=UNSUPPORTED e_message='the grant has no upload policy'
  elif [ -n "${WORKER_RESULTS_S3_BUCKET-}" ]; then
    tame "no credentials for bucket $WORKER_RESULTS_S3_BUCKET: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give a grant"
    e_code=ACCESS_DENIED e_message=$R R=broken
  fi
}
http_means() {
  if [ -n "${WORKER_RESULTS_ENDPOINT-}" ]; then
    http_endpoint=$WORKER_RESULTS_ENDPOINT http_token=${WORKER_RESULTS_TOKEN-} R=environment
    return
  fi
  need_grant
  http_endpoint=$g_http http_token=$g_token
  R=${g_http:+grant}
}

has_remote() {
  s3_means
  [ -z "$R" ] || return 0
  http_means
  [ -n "$R" ]
}

# shellcheck disable=SC2034
down_s3='' down_http=''

# Tries one tier. 0: stored, with location; 1: failed, with e_code and e_message; 2: not configured.
try_tier() {
  eval "down=\$down_$1"
  if [ -n "$down" ]; then e_code=UNAVAILABLE e_message=$down && return 1; fi
  refreshed=''
  while :; do
    "$1_means"
    means=$R
    case $means in '') return 2 ;; broken) return 1 ;; esac
    [ -n "$fresh" ] || now
    give_up_at=$((now_epoch + deadline_s + r_size / 262144))
    case $1$means in
      s3credentials) s3_with_credentials ;;
      s3grant) s3_with_grant ;;
      http*) http_store ;;
    esac && return 0
    case $means$e_code$refreshed in
      grantEXPIRED | grantACCESS_DENIED)
        before=$g_expires_at$g_form$g_url$g_http$g_token refreshed=1
        read_grant
        [ "$before" = "$g_expires_at$g_form$g_url$g_http$g_token" ] || continue
        ;;
    esac
    if [ -n "$e_retry" ]; then eval "down_$1=\$e_message"; fi
    return 1
  done
}

# Whether the record is where $1 wants it.
satisfied() {
  case $1 in
    '') ;;
    remote) [ -n "$r_tiers" ] ;;
    *) case "$r_tiers " in *" $1 "*) ;; *) return 1 ;; esac ;;
  esac
}

# Offers the result in the r_ variables and b_path to the tiers in order, until one has it and $1 is met. Fails only when a
# store has another result under its key and none has this one.
deliver() {
  for tier in s3 http; do
    if [ -n "$r_tiers" ] && satisfied "$1"; then break; fi
    case "$r_tiers " in *" $tier "*) continue ;; esac
    try_tier $tier
    case $? in
      0)
        now
        case $location in *[!"$PRINTABLE"]*) describe_text "$location" && R=$t_json ;; *) quote "$location" ;; esac
        entry="{\"tier\":\"$tier\",\"location\":\"$R\",\"at\":\"$now_iso\"}"
        case $r_stored in '[]') r_stored="[$entry]" ;; *) r_stored=${r_stored%]},$entry] ;; esac
        r_tiers="$r_tiers $tier"
        eval "r_error_$tier=''"
        changed=1
        ;;
      1)
        if [ "$e_code" = EXISTS ] && [ -z "$r_tiers" ]; then return 1; fi
        case $tier in s3) remark "S3 storage failed: $e_message" ;; *) remark "HTTP storage failed: $e_message" ;; esac
        now
        quote "$e_message"
        entry="{\"code\":\"$e_code\",\"message\":\"$R\",\"at\":\"$now_iso\"}"
        eval "r_error_$tier=\$entry"
        changed=1
        ;;
    esac
  done
  return 0
}

# Delivers the result in the r_ variables and notes in its record what became of it.
deliver_committed() {
  rekeys=0
  while :; do
    changed=''
    if deliver "$1"; then
      # Either makes the record's own name safe, which nobody has been told of so far.
      if [ -n "$changed" ]; then save_record "$b_path" || remark "cannot note the delivery of $r_key"; else sync_folder; fi
      if [ -n "$spooled" ]; then
        if [ -n "$r_tiers" ]; then rm -f -- "$folder/.pending/$r_file"; else release; fi
      fi
      return 0
    fi
    rekeys=$((rekeys + 1))
    if [ $rekeys -gt 16 ] || ! rekey; then
      release
      complain "$e_message"
      return 1
    fi
  done
}

sync_folder() { [ -z "$spooled" ] || sync "$folder" 2>/dev/null; }

# Gives the result the next free key, because a store has another's under its own. At every moment one whole result is in
# the spool, and a second process doing the same ends with the same new key.
rekey() {
  old=$r_file old_path=$b_path
  while :; do
    next_stamp "$r_timestamp"
    r_timestamp=$R
    spool_name "$r_timestamp" "$r_name"
    if [ -z "$spooled" ]; then
      claim_elsewhere && break
    else
      b_path=$folder/$r_file
      ln -- "$old_path" "$b_path" 2>/dev/null && break
      # An earlier attempt at the same.
      # shellcheck disable=SC3013
      if [ "$old_path" -ef "$b_path" ]; then break; fi
      [ -e "$b_path" ] || return 1
    fi
  done
  r_key=$r_task_id/$r_timestamp-$r_name r_error_s3='' r_error_http=''
  [ -n "$spooled" ] || return 0
  mark
  save_record "$b_path" || return 1
  rm -f -- "$old_path.meta.json" && rm -f -- "$old_path" "$folder/.pending/$old"
}

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

# Writes the directory at $source to standard output as tar.gz; remarks go to the scratch folder.
archive() {
  remarks=$scratch/remarks
  real=$(cd -- "$source" && pwd -P && echo x) || return 1
  real=${real%"$NL"x}
  base=${real##*/} parent=${real%/*}
  [ -n "$base" ] || base=. parent=/
  true >"$remarks"
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
      specials="$specials${specials:+$NL}$(printf '%s' "$inner" | sed 's/[][*?\\]/\\&/g')"
      ;;
  esac
  set -- -C "${parent:-/}"
  gnu=''
  case $(tar --version 2>/dev/null) in
    *GNU*)
      # The same tree gives the same bytes wherever it is packed.
      gnu=1
      set -- "$@" --sort=name --owner=0 --group=0 --numeric-owner --format=gnu --hard-dereference --ignore-failed-read --anchored
      ;;
  esac
  if [ -n "$specials" ]; then printf '%s\n' "$specials" >"$remarks.not" && set -- "$@" -X "$remarks.not"; fi
  if [ -n "$gnu" ]; then set -- "$@" -- "$base"; else set -- "$@" "./$base"; fi
  # Options for these in the environment are not meant for us.
  {
    TAR_OPTIONS='' tar -cf - "$@" 2>>"$remarks"
    # 1 is for what changed or vanished while it was read, which is said but not fatal.
    [ $? -le 1 ] || echo failed >&3
  } | GZIP='' gzip -n || echo failed >&3
}

# Copies the source into an unfinished file in folder $1.
stage() {
  case $kind in
    file) stage_file "$source" "$1" ;;
    pipe) stage_stream "$1" <"$source" ;;
    stream) stage_stream "$1" ;;
    directory)
      need_scratch || { stage_error="cannot write ${TMPDIR:-/tmp}" && return 1; }
      stage_stream "$1" archive || return 1
      while IFS= read -r line; do remark "${line#tar: }"; done <"$scratch/remarks"
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

# Makes the staged body a result: name, then record, each safe on disk before the next step.
commit() {
  while :; do
    spool_name "$r_timestamp" "$r_name"
    claim "$folder/$r_file" && break
    [ -e "$folder/$r_file" ] || return 1
    next_stamp "$r_timestamp"
    r_timestamp=$R
  done
  mv -f -- "$b_path" "$folder/$r_file" || return 1
  forget "$b_path"
  b_path=$folder/$r_file r_key=$task/$r_timestamp-$r_name
  mark
  save_record "$b_path"
}

# Takes a key outside the spool, from others on this machine.
claim_elsewhere() {
  [ ! -e "$folder/$r_file" ] || return 1
  sha256_text "$task/$r_file"
  claims=${TMPDIR:-/tmp}/persist-result-claims
  mkdir -p -- "$claims" 2>/dev/null
  claim "$claims/$R" || [ ! -e "$claims/$R" ]
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
  else
    { need_scratch && stage "$scratch"; } || {
      complain "All storage methods failed: local: $failure; $stage_error"
      return 1
    }
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
}

# Stores path $1 under the name asked for, or its own; the caller has set task, require and the metadata.
store() {
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
    if [ -n "$unchanged_in" ] && find_unchanged; then
      unstage
      verdict=unchanged
      return 0
    fi
    draft
    r_size=$b_size r_sha256=$b_sha
    if commit; then
      if [ -n "$later" ]; then
        sync_folder
        release
        return 0
      fi
      deliver_committed "$require" || return 1
      # Asked after the record was written, so that whoever seals later has this result in its list.
      [ -z "$r_tiers" ] || return 0
      # A conductor drains its worker's own task: what lies here for another would go with the sandbox.
      if [ "$task" != "${WORKER_ID:-$task}" ] && [ -d "$dir/.worker/$WORKER_ID/bin" ]; then
        complain "no remote storage took the result, and only results of $WORKER_ID are safe in this spool"
        return 1
      fi
      [ -e "$dir/.worker/$task/sealed" ] || return 0
      complain "$task is being terminated, and no remote storage took the result"
      return 1
    fi
    stage_error="cannot write $folder"
    # The body is there, but it is a result only with its record.
    source=$b_path kind=file
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
    if [ -n "$r_tiers" ]; then rm -f -- "$marked" && continue; fi
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
    store "$path"
    status=$?
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
    *) misused "metadata is not JSON: ${problem-unreadable}" ;;
  esac
  [ "$r_metadata_size" -le 2097152 ] || misused 'metadata must be at most 2097152 bytes of JSON'
  metadata=$r_metadata metadata_ascii=$r_metadata_ascii metadata_config=$r_metadata_config metadata_size=$r_metadata_size
}

# ---------------------------------------------------------------- reading back

# Prints a line for every whole result of the task in the spool, in key order: key, tiers, digest and record, with tabs between.
list_task() {
  [ -d "$dir/$task" ] || return 0
  (
    cd -- "$dir/$task" || exit 1
    find . ! -name . -prune -type f -name '[!.]*.meta.json' -exec awk -v mode=records -v task="$task" "$AWK" {} + 2>/dev/null | sort
  )
}

list() {
  tasks=${1:-${WORKER_ID-}}
  if [ -n "$tasks" ]; then
    task_id_problem "$tasks" && misused "task id $R"
    set -- "$tasks"
  else
    set +f
    set -- "$dir"/*
    set -f
  fi
  field=1
  [ -z "$json" ] || field=4-
  for task; do
    task=${task##*/}
    task_id_problem "$task" || list_task | cut -f $field
  done
}

check_key() {
  task=${1%%/*} name=${1#*/}
  case $1 in */*) ;; *) return 1 ;; esac
  r_timestamp=${name%"${name#???????????????}"}
  name=${name#"$r_timestamp"}
  case $r_timestamp$name in [0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]-[0-9][0-9][0-9][0-9][0-9][0-9]-?*) ;; *) return 1 ;; esac
  name=${name#-}
  task_id_problem "$task" && return 1
  describe_name "$name"
  [ -z "$n_problem" ] || return 1
  stamp_to_epoch "$r_timestamp"
  epoch_to_stamp "$R"
  [ "$R" = "$r_timestamp" ]
}

# Checks that file $1 has digest $2; an unknown one is taken on trust.
check_digest() {
  [ -n "$2" ] || return 0
  R=$($SHA256_BIG <"$1")
  [ "${R%% *}" = "$2" ] && return 0
  complain "$key from $3: its bytes are not those that were stored"
  return 1
}

# Hands file $1 over as the result.
hand_over() {
  case $output in
    '' | -) cat -- "$1" || die 1 'cannot write to standard output' ;;
    *)
      case $output in /*) ;; *) output=./$output ;; esac
      temporary "${output%/*}"
      keep_track "$R"
      { cat -- "$1" >"$R" && sync "$R" && mv -f -- "$R" "$output"; } 2>/dev/null || die 1 "cannot write $output"
      ;;
  esac
}

# Downloads into the scratch folder with a sender and its arguments. 0: there, 1: not there or refused.
download() {
  where=$1
  shift
  got=$scratch/body
  fresh=''
  "$@" -o "$got" || {
    network_failure
    failed=1
    complain "cannot read $key: $e_message" && return 1
  }
  case $http_status in
    200) return 0 ;;
    404 | 405) return 1 ;;
  esac
  [ ! -f "$got" ] || reply="$reply$CR$NL$CR$NL$(dd if="$got" bs=4096 count=1 2>/dev/null | tr -d '\0')"
  case $where in s3) s3_failure GET ;; *) http_failure ;; esac
  failed=1
  complain "cannot read $key: $e_message"
  return 1
}

retrieve() {
  key=$1 failed=''
  check_key "$key" || { tame "$key" && misused "key must be \"{task_id}/{YYYYMMDD-HHMMSS}-{name}\" (got \"$R\")"; }
  folder=$dir/$task
  spool_name "$r_timestamp" "$name"
  if load_record "$folder/$r_file" && [ "$r_key" = "$key" ]; then
    check_digest "$folder/$r_file" "$r_sha256" local && { hand_over "$folder/$r_file" && return 0; }
    failed=1
  fi
  check_key "$key"
  now
  # What is big takes as long as it moves; only standing still ends it.
  give_up_at=$((now_epoch + 86400))
  r_task_id=$task r_key=$key
  need_scratch || die 1 "cannot write ${TMPDIR:-/tmp}"
  if [ -n "${WORKER_RESULTS_S3_BUCKET-}" ] && [ -n "${AWS_ACCESS_KEY_ID-}" ] && [ -n "${AWS_SECRET_ACCESS_KEY-}" ]; then
    s3_region=${AWS_REGION:-${AWS_DEFAULT_REGION:-us-east-1}}
    trim_slashes "${WORKER_RESULTS_S3_PREFIX:-results}"
    if s3_place "$WORKER_RESULTS_S3_BUCKET" "$s3_region" "${AWS_ENDPOINT_URL_S3:-${AWS_ENDPOINT_URL-}}" && object_place "$R" "$WORKER_RESULTS_S3_BUCKET"; then
      no_meta
      if download s3 s3_send GET "$object" '' $EMPTY_SHA256; then
        answer_header x-amz-meta-sha256
        check_digest "$got" "$R" s3 && hand_over "$got" && return 0
        failed=1
      fi
    fi
  fi
  if [ -n "${WORKER_RESULTS_ENDPOINT-}" ] && take_apart "$WORKER_RESULTS_ENDPOINT"; then
    http_endpoint=$WORKER_RESULTS_ENDPOINT http_token=${WORKER_RESULTS_TOKEN-}
    query=${http_endpoint#*\?}
    [ "$query" != "$http_endpoint" ] || query=''
    request_to "${http_endpoint%%[?#]*}"
    request_to "${http_endpoint%%://*}://${u_host}${u_path%/}/$task/$r_timestamp-$n_path${query:+?}$query"
    http_authorize
    if download http send; then
      answer_header x-result-sha256
      sha=$R
      [ -n "$sha" ] || { answer_header etag && sha=$R; }
      sha=${sha#\"} sha=${sha%\"}
      case $sha in *[!0123456789abcdef]*) sha='' ;; esac
      [ ${#sha} = 64 ] || sha=''
      check_digest "$got" "$sha" http && hand_over "$got" && return 0
      failed=1
    fi
  fi
  [ -n "$failed" ] || complain "no result has the key $key"
  return 1
}

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
      [ ! -e "$folder/.pending/$marked" ] || rm -f -- "$folder/.pending/$marked"
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
  [ $still = 0 ] || mention "$still results are still only in the local spool"
  [ $missing = 0 ] || return 3
}

# ---------------------------------------------------------------- drain

# Finds the newest result of the name about to be stored in the listing; true when it has the bytes that were staged.
find_unchanged() {
  R=$(PERSIST_RESULT_TEXT=$name awk -F "$TAB" -v skip=$((${#task} + 18)) '
    substr($1, skip) == ENVIRON["PERSIST_RESULT_TEXT"] { found = $3 "\t" $1 }
    END { print found }' "$unchanged_in")
  unchanged_key=${R#*"$TAB"}
  [ "${R%%"$TAB"*}" = "$b_sha" ]
}

# Stores path $1 in the spool unless its newest result has the same bytes, and leaves delivering it for later. Puts what
# became of it into outcome (stored, unchanged, missing or failed), with outcome_key and outcome_error.
store_output() {
  outcome_key='' outcome_error='' asked_type='' require='' later=1 hushed=1
  read_metadata
  if [ ! -e "$1" ] && [ ! -L "$1" ]; then
    outcome=missing
  elif store "$1"; then
    outcome=$verdict
    if [ $outcome = stored ]; then outcome_key=$r_key; else outcome_key=$unchanged_key; fi
  else
    tame "$last_complaint"
    outcome=failed outcome_error=$R
  fi
  later='' hushed=''
}

# Notes what there is of the task, for store_output.
note_listing() {
  need_scratch || return 1
  unchanged_in=$scratch/listing
  list_task >"$unchanged_in"
}

# Puts text $1 into R as the inside of a JSON string, whatever its bytes are.
json_text() {
  case $1 in
    *[!"$PRINTABLE"]*)
      describe_text "$1"
      R=$t_json
      case $R in *[!"$PRINTABLE"]*) R=$(printf '%s' "$R" | iconv -c -f UTF-8 -t UTF-8 2>/dev/null | tr '\1-\37\177' '?') ;; esac
      ;;
    *) quote "$1" ;;
  esac
}

drain() {
  asked_task='' reports='' comma='' seal=''
  # The outputs stay behind as the positional parameters.
  count=$#
  while [ "$count" -gt 0 ]; do
    case $1 in
      -o | --output | -t | --task-id)
        [ "$count" -gt 1 ] || misused "$1 needs a value"
        case $1 in -t | --task-id) asked_task=$2 ;; *) set -- "$@" "$2" ;; esac
        shift 2
        count=$((count - 2))
        continue
        ;;
      --output=*) set -- "$@" "${1#*=}" ;;
      --task-id=*) asked_task=${1#*=} ;;
      --json) json=1 ;;
      --seal) seal=1 ;;
      *) misused "drain does not know $1" ;;
    esac
    shift
    count=$((count - 1))
  done
  need_task
  note_listing || die 1 "cannot write ${TMPDIR:-/tmp}"
  # All are safe in the spool before the first is sent: whoever asks for a drain may be about to end the sandbox.
  for output; do
    store_output "$output"
    if [ -n "$json" ]; then
      json_text "$output" && report="{\"path\":\"$R\",\"status\":\"$outcome\",\"key\":"
      json_text "$outcome_key" && report="$report${outcome_key:+\"}${R:-null}${outcome_key:+\"},\"error\":"
      json_text "$outcome_error" && report="$report${outcome_error:+\"}${R:-null}${outcome_error:+\"}}"
      reports=$reports$comma$report comma=,
    else
      printf '%s\n' "$outcome$TAB$output${outcome_key:+$TAB}$outcome_key${outcome_error:+$TAB}$outcome_error"
    fi
  done
  unchanged_in='' require='' silent=1
  flush
  if [ -n "$seal" ]; then
    # Whoever stores something from now on cannot count on its being noticed in the spool.
    { make_folder "$dir/.worker/$task" && true >"$dir/.worker/$task/sealed" && sync "$dir/.worker/$task/sealed" "$dir/.worker/$task"; } 2>/dev/null ||
      die 1 "cannot write $dir/.worker/$task"
  fi
  list_task >"$scratch/listing"
  if [ -z "$json" ]; then
    awk -F "$TAB" '$2 == "" { pending++ } END { print NR + 0 " results, " pending + 0 " of them only in the local spool" }' "$scratch/listing"
  else
    printf '{"v":1,"outputs":[%s],"records":[' "$reports"
    cut -f 4- "$scratch/listing" | awk 'BEGIN { ORS = "" } NR > 1 { print "," } { print }'
    printf ']}\n'
  fi
}

# ---------------------------------------------------------------- run

# Puts a duration such as 500ms, 60s, 5m or 1h into R, in seconds for sleep.
duration() {
  R=${1%%[!0123456789.]*}
  case $R in '' | *.*.* | .* | *.) return 1 ;; esac
  case ${1#"$R"} in
    '' | s) ;;
    ms) case $R in *.*) return 1 ;; *) fraction=$((1000 + R % 1000)) R=$((R / 1000)).${fraction#1} ;; esac ;;
    m) case $R in *.*) return 1 ;; *) R=$((R * 60)) ;; esac ;;
    h) case $R in *.*) return 1 ;; *) R=$((R * 3600)) ;; esac ;;
    *) return 1 ;;
  esac
}

# Keeps the start and the end of standard input in file $1; FIFO $2 is for counting.
keep_log() {
  half=$((log_limit / 2))
  if head --version >/dev/null 2>&1; then
    head -c $half >"$1"
    wc -c <"$2" >"$2.size" &
    tee "$2" | tail -c $half >"$1.tail"
    wait $!
    read -r more <"$2.size"
  else
    # Other heads read more than they write.
    cat >"$1.all"
    more=$(($(wc -c <"$1.all") - half))
    dd if="$1.all" of="$1" bs=$half count=1 2>/dev/null
    if [ $more -lt $half ]; then kept=$more; else kept=$half; fi
    true >"$1.tail"
    [ $more -le 0 ] || tail -c $kept "$1.all" >"$1.tail"
    rm -f -- "$1.all"
  fi
  [ "$more" -le $half ] || printf '\n[persist-result: %s bytes left out]\n' $((more - half)) >>"$1"
  cat -- "$1.tail" >>"$1"
  rm -f -- "$1.tail"
}

# Passes a stream of the command through and keeps it: $1 is out or err, $2 the log. Leaves the process ids in tee_pid and log_pid.
watch_stream() {
  mkfifo "$scratch/$1" "$scratch/$1.log" "$scratch/$1.count" || return 1
  (
    trap - EXIT
    trap '' HUP INT QUIT TERM USR1 USR2
    keep_log "$2" "$scratch/$1.count" <"$scratch/$1.log"
  ) >/dev/null 2>&1 &
  log_pid=$!
  (
    # A reader that went away must not take the command with it.
    trap - EXIT
    trap '' HUP INT QUIT TERM USR1 USR2 PIPE
    exec tee "$scratch/$1.log" <"$scratch/$1" 2>/dev/null
  ) &
  tee_pid=$!
}

pass_on() {
  interrupted=1
  [ -n "$child" ] || return 0
  kill "-$1" "$child_group$child" 2>/dev/null || :
  case $1.$grace.$killer in
    TERM.?*.)
      (
        trap - EXIT HUP INT QUIT TERM
        sleep "$grace" && kill -KILL "$child_group$child"
      ) </dev/null >/dev/null 2>&1 &
      killer=$!
      ;;
  esac
}

# Stores what a command leaves behind, if it changed; complains about what is missing when $1 says so, then the things.
keep() {
  mentions=$1
  shift
  note_listing || return 0
  for thing; do
    asked_name='' has_name=''
    case $thing in "$named") asked_name=$run_name has_name=1 ;; esac
    store_output "$thing"
    case $outcome in
      failed) remark "$thing is not stored: $outcome_error" ;;
      missing) [ -z "$mentions" ] || remark "$thing is not stored: it does not exist" ;;
    esac
  done
  unchanged_in='' spooled=1 folder=$dir/$task
  catch_up
}

# Looks at the checkpoints now and then until it is told to stop; it then ends with the round that has begun.
checkpoint() {
  trap - EXIT HUP INT QUIT TERM
  unique=${unique}c
  while [ ! -e "$scratch/stop" ] && kill -0 $$ 2>/dev/null; do
    sleep "$every" &
    printf '%s' $! >"$scratch/sleeper"
    wait $!
    [ -e "$scratch/stop" ] || (keep '' "$@")
  done
}

run() {
  asked_task='' run_id='' outputs=0 checkpoints=0 every=60 log='' log_limit=16777216 grace='' killer='' run_name='' named="$NL"
  need_scratch || die 1 "cannot write ${TMPDIR:-/tmp}"
  while [ $# -gt 0 ]; do
    case $1 in
      --) shift && break ;;
      --log) log=1 && shift && continue ;;
      --*=*) option=${1%%=*} value=${1#*=} && shift ;;
      -o | -t | -n | --output | --checkpoint | --run-id | --task-id | --name | --every | --log-limit | --grace)
        [ $# -gt 1 ] || misused "$1 needs a value"
        option=$1 value=$2
        shift 2
        ;;
      *) misused "run does not know $1" ;;
    esac
    case $option in
      -o | --output) outputs=$((outputs + 1)) && eval "output_$outputs=\$value" ;;
      --checkpoint) checkpoints=$((checkpoints + 1)) && eval "checkpoint_$checkpoints=\$value" ;;
      --run-id) run_id=$value ;;
      -t | --task-id) asked_task=$value ;;
      -n | --name) run_name=$value ;;
      --every) duration "$value" || misused "--every must be a duration such as 60s, not \"$value\"" && every=$R ;;
      --grace) duration "$value" || misused "--grace must be a duration such as 10s, not \"$value\"" && grace=$R ;;
      --log-limit)
        case $value in '' | *[!0123456789]* | ????????????????*) misused '--log-limit must be a number of bytes' ;; esac
        log_limit=$value
        [ "$log_limit" -ge 2 ] || misused '--log-limit must be a number of bytes'
        ;;
      *) misused "run does not know $option" ;;
    esac
  done
  [ $# -gt 0 ] || misused 'run needs a command after --'
  [ -z "$run_name" ] || [ $outputs = 1 ] || misused '--name goes with one --output'
  # shellcheck disable=SC2154
  [ -z "$run_name" ] || named=$output_1
  need_task
  now
  [ -n "$run_id" ] || run_id=$now_stamp-${unique%"${unique#??????}"}
  describe_name "$run_id"
  [ -z "$n_problem" ] || misused "--run-id $n_problem"
  run_json=$n_json
  run_dir=$dir/.worker/$task/runs/$run_id
  keep_grant
  # Somebody runs a command again, and somebody will take stock again.
  [ ! -e "$dir/.worker/$task/sealed" ] || rm -f -- "$dir/.worker/$task/sealed"
  tees='' logs=''
  if make_folder "$run_dir" && { printf '' >"$run_dir/heartbeat"; } 2>/dev/null; then
    watch_stream out "$run_dir/stdout.log"
    tees=$tee_pid logs=$log_pid
    watch_stream err "$run_dir/stderr.log" >&2
    tees="$tees $tee_pid" logs="$logs $log_pid"
    (
      trap - EXIT HUP INT QUIT TERM
      while sleep 5 && kill -0 $$; do touch -- "$run_dir/heartbeat"; done
    ) </dev/null >/dev/null 2>&1 &
    heart=$!
  else
    complain "cannot write $run_dir: the command's output and exit status are not kept"
    run_dir=''
  fi
  started=$now_iso
  child='' child_group=''
  ! command -v setsid >/dev/null 2>&1 || child_group=-
  for signal in HUP INT QUIT TERM USR1 USR2; do
    # shellcheck disable=SC2064
    trap "pass_on $signal" $signal
  done
  # A background command's input is /dev/null unless it is said to be another.
  exec 3<&0
  if [ -n "$run_dir" ]; then
    supervised "$@" <&3 >"$scratch/out" 2>"$scratch/err" 3<&- &
  else
    supervised "$@" <&3 3<&- &
  fi
  child=$!
  exec 3<&-
  set --
  while [ $checkpoints -gt 0 ]; do
    eval "set -- \"\$checkpoint_$checkpoints\" \"\$@\""
    checkpoints=$((checkpoints - 1))
  done
  checkpointer=''
  if [ $# -gt 0 ]; then
    checkpoint "$@" </dev/null >/dev/null &
    checkpointer=$!
  fi
  while :; do
    interrupted=''
    # Some shells remark on signals here.
    wait "$child" 2>/dev/null
    status=$?
    # A signal ends the wait, not the command.
    [ -n "$interrupted" ] || break
  done
  child=''
  # The command's group may live on without it; the clock that runs against it does not.
  [ -z "$killer" ] || kill "$killer" 2>/dev/null
  now
  if [ -n "$run_dir" ]; then
    note_exit || complain 'cannot write exit.json'
    settle_streams
    { kill "$heart" && wait "$heart"; } 2>/dev/null
  fi
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap - QUIT USR1 USR2
  if [ -n "$checkpointer" ]; then
    printf '' >"$scratch/stop"
    { read -r sleeper <"$scratch/sleeper"; } 2>/dev/null
    kill "${sleeper:-}" 2>/dev/null
    wait "$checkpointer"
  fi
  number=1
  while [ $number -le $outputs ]; do
    eval "set -- \"\$@\" \"\$output_$number\""
    number=$((number + 1))
  done
  [ -z "$log$run_dir" ] || [ -z "$log" ] || set -- "$@" "$run_dir/stdout.log" "$run_dir/stderr.log"
  [ $# = 0 ] || keep missing "$@"
  return $status
}

# Becomes the command, in a group of its own, so that signals reach everything that it starts.
supervised() {
  trap - EXIT HUP INT QUIT TERM USR1 USR2
  here=$(cd -- "$(dirname -- "$0")" && pwd -P)
  if [ -n "$user_locale" ]; then LC_ALL=$user_locale; else unset LC_ALL; fi
  # It has the grant in its file.
  unset WORKER_RESULTS_GRANT
  WORKER_ID=$task WORKER_RESULTS_LOCAL_DIR=$dir PATH=$here:$PATH NODE_PATH=$here${NODE_PATH:+:}${NODE_PATH-}
  export WORKER_ID WORKER_RESULTS_LOCAL_DIR PATH NODE_PATH
  # Shells start background commands deaf to these two, and cannot undo it themselves.
  case $1 in
    *=*) ;;
    *) ! env --default-signal=INT,QUIT true 2>/dev/null || set -- env --default-signal=INT,QUIT -- "$@" ;;
  esac
  [ -z "$child_group" ] || exec setsid "$@"
  exec "$@"
}

# Puts a grant that came in the environment where the command's own calls look for it.
keep_grant() {
  [ -n "${WORKER_RESULTS_GRANT-}" ] && [ ! -e "$dir/.worker/$task/grant.json" ] || return 0
  grant='' g_best=0
  consider_grant WORKER_RESULTS_GRANT "$WORKER_RESULTS_GRANT"
  [ -n "$grant" ] || return 0
  make_folder "$dir/.worker/$task" || return 0
  temporary "$dir/.worker/$task"
  keep_track "$R"
  (umask 077 && printf '%s' "$WORKER_RESULTS_GRANT" >"$R" && sync "$R" && mv -f -- "$R" "$dir/.worker/$task/grant.json") 2>/dev/null || remark 'cannot keep the grant for the command'
}

# Writes how the command ended. A status above 128 is taken for a signal: the shell does not tell them apart.
note_exit() {
  code=$status signal=null
  if [ "$status" -gt 128 ] && R=$(kill -l $((status - 128)) 2>/dev/null) && [ -n "$R" ]; then
    case $R in *[!"$ALNUM"]* | [0123456789]*) ;; *) code=null signal="\"SIG${R#SIG}\"" ;; esac
  fi
  temporary "$run_dir"
  record=$R
  keep_track "$record"
  {
    printf '{"v":1,"task_id":"%s","run_id":"%s","code":%s,"signal":%s,"started_at":"%s","ended_at":"%s"}\n' \
      "$task" "$run_json" "$code" "$signal" "$started" "$now_iso" >"$record"
  } 2>/dev/null && sync "$record" "$run_dir" 2>/dev/null && mv -f -- "$record" "$run_dir/exit.json" && forget "$record"
}

# Waits for the rest of the output, but not for processes that the command left behind with its streams open.
settle_streams() {
  # shellcheck disable=SC2086
  {
    (
      trap - EXIT HUP INT QUIT TERM
      sleep 0.5 || sleep 1
      kill -KILL $tees
    ) </dev/null >/dev/null 2>&1 &
    late=$!
    wait $tees $logs
    kill "$late" && wait "$late"
  } 2>/dev/null
}

# ---------------------------------------------------------------- command line

usage() {
  cat <<'END'
Usage: persist-result [OPTION]... PATH...
       persist-result --list [TASK] | --retrieve KEY [-o FILE] | --flush
       persist-result run [OPTION]... -- COMMAND [ARG]...
       persist-result drain [OPTION]...

Stores files, directories (as .tar.gz) or standard input (-) as results of a task.
Each goes to the local spool first, then to S3, else to the HTTP endpoint.
Keys go to standard output, everything else to standard error.

  -n, --name NAME          name of the result (default: last part of PATH)
  -m, --metadata JSON      JSON object to keep with it; @FILE reads it from a file
  -t, --task-id ID         task it belongs to (default: $WORKER_ID)
      --content-type TYPE  default: by the ending of the name
      --require WHERE      s3, http or remote: fail unless it got there
      --json               print records, one JSON object a line, instead of keys
  -q, --quiet              no remarks and no progress, only errors

  -l, --list [TASK]        keys of a task's results in the spool
  -r, --retrieve KEY       write a result to standard output
  -o, --output FILE        … or to a file, whole or not at all
      --flush              deliver what is not yet in a remote storage
      --version            print version and implementation
  -h, --help               print this

run    runs a command and keeps its output and exit status, whatever becomes of
       the results; exits with the command's own status.
         --run-id ID         folder name under .worker/TASK/runs (default: generated)
         --output PATH       stored when the command has ended (repeatable)
         --checkpoint PATH   stored during the run when its content changed (repeatable)
         --every DURATION    how often checkpoints are looked at (default: 60s)
         --grace DURATION    after SIGTERM, kill the command when it takes longer
         --log               also store what the command printed
         --log-limit BYTES   of each stream this much is kept, half from its start
                             and half from its end (default: 16777216)
drain  stores the given outputs unless they are stored already, delivers what is
       pending, and prints a report.
         --output PATH       (repeatable)
         --json              the report as one line of JSON
         --seal              from now on refuse results that only the spool would have

Exit status: 0 stored; 1 stored nowhere, or not found; 2 wrong usage;
3 stored, but not where --require says.

Environment: WORKER_ID, WORKER_RESULTS_LOCAL_DIR [/workspace/.results],
WORKER_RESULTS_S3_BUCKET, WORKER_RESULTS_S3_PREFIX [results], AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_DEFAULT_REGION
[us-east-1], AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, WORKER_RESULTS_ENDPOINT,
WORKER_RESULTS_TOKEN, WORKER_RESULTS_GRANT, WORKER_RESULTS_GRANT_FILE,
WORKER_RESULTS_STALL_SECONDS [30], WORKER_RESULTS_DEADLINE_SECONDS [120].
END
}

need_task() {
  task=${asked_task:-${WORKER_ID-}}
  [ -n "$task" ] || misused 'no task id: give --task-id (taskId) or set WORKER_ID'
  if task_id_problem "$task"; then
    problem=$R
    tame "$task"
    misused "task id $problem (got \"$(printf '%.80s' "$R")\")"
  fi
}

quiet='' json='' silent='' require='' asked_name='' has_name='' asked_type='' asked_task='' output='' later='' hushed='' unchanged_in='' last_complaint=''
metadata_given=''
TAB=$(printf '\t')
dir=${WORKER_RESULTS_LOCAL_DIR:-/workspace/.results}
case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
while :; do case $dir in ?*/) dir=${dir%/} ;; *) break ;; esac; done

case ${1-} in
  run)
    shift
    run "$@"
    exit
    ;;
  drain)
    shift
    drain "$@"
    exit
    ;;
esac

mode=''
# Options are taken off the front and what is not one goes to the back, so that only paths are left at the end.
count=$#
while [ "$count" -gt 0 ]; do
  count=$((count - 1)) word=$1
  shift
  case $word in
    --)
      while [ "$count" -gt 0 ]; do
        word=$1 count=$((count - 1))
        shift
        set -- "$@" "$word"
      done
      ;;
    --name | --metadata | --task-id | --content-type | --require | --retrieve | --output | -[nmtro])
      [ "$count" -gt 0 ] || misused "$word needs a value"
      option=$word value=$1 count=$((count - 1))
      shift
      ;;
    --name=* | --metadata=* | --task-id=* | --content-type=* | --require=* | --retrieve=* | --output=*) option=${word%%=*} value=${word#*=} ;;
    -[nmtro]?*) value=${word#-?} && option=${word%"$value"} ;;
    --json) json=1 && continue ;;
    --quiet | -q) quiet=1 && continue ;;
    --list | -l | --flush | --help | -h | --version)
      case $word in -l) word=--list ;; -h) word=--help ;; esac
      case $mode in
        --help | --version | "$word") ;;
        --list | --retrieve | --flush)
          case $word in --help | --version) mode=$word ;; *) misused '--list, --retrieve and --flush exclude each other' ;; esac
          ;;
        *) mode=$word ;;
      esac
      continue
      ;;
    -?*) misused "unknown option $word" ;;
    *) set -- "$@" "$word" && continue ;;
  esac
  [ "$word" != -- ] || break
  case $option in
    --name | -n) asked_name=$value has_name=1 ;;
    --metadata | -m) metadata_text=$value metadata_given=1 ;;
    --task-id | -t) asked_task=$value ;;
    --content-type) asked_type=$value && check_content_type "$value" ;;
    --require) require=$value ;;
    --output | -o) output=$value output_given=1 ;;
    --retrieve | -r)
      case $mode in --list | --flush) misused '--list, --retrieve and --flush exclude each other' ;; esac
      [ -n "$mode" ] || mode=--retrieve
      wanted=$value
      ;;
  esac
done

case $mode in
  --help) usage && exit ;;
  --version) printf 'persist-result %s (sh)\n' "$VERSION" && exit ;;
esac
case $require in '' | s3 | http | remote) ;; *) misused "--require must be s3, http or remote, not \"$require\"" ;; esac
[ -z "${output_given-}" ] || [ "$mode" = --retrieve ] || misused '--output belongs to --retrieve'
case $mode in
  --list)
    [ $# -le 1 ] || misused '--list takes one task'
    list "${1:-$asked_task}"
    exit
    ;;
  --retrieve)
    [ $# = 0 ] || misused '--retrieve takes one key'
    retrieve "$wanted"
    exit
    ;;
  --flush)
    [ $# = 0 ] || misused '--flush takes no paths'
    need_task
    flush
    exit
    ;;
esac
[ $# -gt 0 ] || misused 'nothing to store: give a path, or - for standard input'
[ -z "$has_name" ] || [ $# = 1 ] || misused '--name goes with one path only'
for word; do [ "$word" != - ] || [ -n "$has_name" ] || misused '- needs --name'; done
if [ -n "$metadata_given" ]; then read_metadata "$metadata_text"; else read_metadata; fi
need_task
store_all "$@"
exit
