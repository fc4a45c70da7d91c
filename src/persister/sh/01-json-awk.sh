# ---------------------------------------------------------------- JSON and names, in awk

# shellcheck disable=SC2016
AWK='# Scans JSON in linear time with any awk: records end at quotes, so that each is either the inside of a string (or of a part
# of one) or what lies between strings. Bytes, not characters: always run with LC_ALL=C.
# mode: metadata (one object), record, records (many files beside their bodies), notes (many files of a record each), grant,
# upload, name (from the environment, no input).
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
  if (many || index(s, "\047") == 0) { out[++outs] = s; return }
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
# Regular expressions are written out where they are used: some awks compile one in a variable anew each time.
function unclean(s) {
  gsub(/[\302-\337][\200-\277]|\340[\240-\277][\200-\277]|[\341-\354\356\357][\200-\277][\200-\277]|\355[\200-\237][\200-\277]|\360[\220-\277][\200-\277][\200-\277]|[\361-\363][\200-\277][\200-\277][\200-\277]|\364[\200-\217][\200-\277][\200-\277]/, "", s)
  return s ~ /[\200-\377]/
}
# Pieces, because some regular expression engines take the square of the length.
function unclean_long(s,   i, k, n) {
  if (s !~ /[\200-\377]/) return 0
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
  if (s ~ /[\001-\037]/) { fail("a raw control character in a string"); return }
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
        if (++depth > 100) deep = 1
        kind[depth] = c == "{" ? "}" : "]"; want = c == "{" ? "O" : "A"; key[depth] = ""
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
  if (mode == "grant" || mode == "upload") return 1
  if (mode == "metadata") return 0
  if (depth == 1) return key[1] in fields
  return key[1] == "stored" && depth == 3 && key[3] == "tier"
}
function scalar(value, type,   path, i) {
  if (mode == "metadata") return
  if (mode == "grant") { grant_field(value, type); return }
  if (mode == "upload") { upload_field(value, type); return }
  if (depth == 1 && key[1] in fields) { field[key[1]] = value; ftype[key[1]] = type }
  else if (depth == 3 && key[1] == "stored" && key[3] == "tier" && type == "string") tiers = tiers " " value
}
function grant_field(value, type,   path, i) {
  if (type == "null") return
  path = key[1]
  for (i = 2; i <= depth; i++) path = path "." key[i]
  if (value ~ /[\001-\037]/ || value ~ /\177/) { fail("a control character in " path); return }
  if (depth == 4 && key[1] == "s3" && key[2] == "policy" && key[3] == "fields") {
    if (key[4] == "key" || key[4] == "file") return
    if (key[4] !~ /^[A-Za-z0-9-]+$/ || type != "string") { fail("a form field that cannot be sent"); return }
    names = names tolower(key[4]) " "
    form = form "form-string = \"" key[4] "=" escaped(value) "\"\n"
  } else if (depth == 3 && key[1] == "s3" && key[2] == "headers") {
    if (key[3] !~ /^[a-z0-9-]+$/ || type != "string") { fail("a header that cannot be sent"); return }
    headers = headers key[3] ":" value "\n"
  } else if (path in gname && type == gtype[path]) say(gname[path], value)
}
function upload_field(value, type) {
  if (value ~ /[\001-\037]/) { fail("a control character"); return }
  if (depth == 1 && key[1] in uname && (type == utype[key[1]] || type == "null" || key[1] == "v")) say(uname[key[1]], type == "null" ? "" : value)
  else if (depth == 2 && key[1] == "done" && type == "number") part[value ".etag"] = ""
  else if (depth == 3 && key[1] == "parts" && type == "string") part[key[2] "." key[3]] = value
}
function upload_parts(   n, list, etag) {
  for (n in part) {
    if (n !~ /^[1-9][0-9]?[0-9]?[0-9]?[0-9]?\.etag$/) continue
    etag = part[n]; sub(/\.etag$/, "", n)
    list = list n "\t" etag "\t" ((n ".checksum") in part ? part[n ".checksum"] : "") "\n"
  }
  say("u_parts", list)
}
function start() {
  bad = 0; deep = 0; problem = ""; depth = 0; want = "V"; quoting = 0; raw = many; outs = 0; rawsize = CAP + 1; rawbuf = ""
  form = ""; names = " "; headers = ""; tiers = ""; split("", field); split("", ftype); split("", kind); split("", key)
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
    && field["content_type"] !~ /[\001-\037]/ && field["created_at"] ~ /^[0-9TZ:.-]+$/
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
  if (!bad && mode == "metadata" && deep) fail("too deep")
  if (!bad && (mode == "record" || many) && !record_whole()) fail("not a metadata record")
  if (many) {
    if (bad || mode == "records" && !beside_its_body(substr(file, 3))) return
    print field["key"] "\t" tiers "\t" field["sha256"] "\t"
    for (i = 1; i <= outs; i++) print out[i]
    print "\n"
    return
  }
  if (bad) { print "problem=" quoted(problem) "\n"; return }
  print "problem=\n"
  if (mode == "upload") upload_parts()
  for (i = 1; i <= outs; i++) print out[i]
  if (mode == "record") {
    for (name in fields) print "r_" name "=" quoted(ftype[name] == "null" ? "" : field[name]) "\n"
    print "r_tiers=" quoted(tiers) "\n"
  }
  if (mode == "grant") print "g_form=" quoted(form) "\ng_names=" quoted(names) "\ng_headers=" quoted(headers) "\n"
}
function name_problem(s,   rest) {
  if (s == "") return "must not be empty"
  if (s == "." || s == "..") return "must not be \".\" or \"..\""
  if (index(s, "/")) return "must be one path segment, without \"/\""
  if (unclean(s)) return "must be valid Unicode"
  if (s ~ /[\001-\037]/ || s ~ /\177/ || s ~ /\302[\200-\237]/) return "must not contain control characters"
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
  # Not in one piece, since find would put file names there.
  SIZES = "find . ! -name . -prune -type f ! -name \"*.meta.json\" -exec stat -c \"%s%n\" {" "} +"
  for (i = 127; i < 256; i++) ord[sprintf("%c", i)] = i
  if (mode == "name") { name_mode(); exit }
  many = mode == "records" || mode == "notes"
  if (mode == "records") read_sizes()
  plain["b"] = "\b"; plain["f"] = "\f"; plain["n"] = "\n"; plain["r"] = "\r"; plain["t"] = "\t"
  n = split("v task_id timestamp name key size sha256 content_type created_at archive", list, " ")
  for (i = 1; i <= n; i++) fields[list[i]]
  n = split("v:v:number task_id:task_id:string expires_at:expires_at:string bucket:s3.bucket:string prefix:s3.prefix:string" \
    " region:s3.region:string endpoint:s3.endpoint:string url:s3.policy.url:string max_bytes:s3.policy.max_bytes:number" \
    " key_id:s3.session.access_key_id:string secret:s3.session.secret_access_key:string" \
    " session:s3.session.session_token:string broker:s3.broker.v:number broker_url:s3.broker.url:string" \
    " broker_token:s3.broker.token:string broker_max:s3.broker.max_bytes:number broker_put:s3.broker.put_bytes:number" \
    " http:http.endpoint:string token:http.token:string", list, " ")
  for (i = 1; i <= n; i++) { split(list[i], one, ":"); gname[one[2]] = "g_" one[1]; gtype[one[2]] = one[3] }
  n = split("v:number key:string objectKey:string bucket:string endpoint:string sha256:string uploadId:string partBytes:number", list, " ")
  for (i = 1; i <= n; i++) { split(list[i], one, ":"); uname[one[1]] = "u_" one[1]; utype[one[1]] = one[2] }
}
FNR == 1 { if (NR > 1) finish(); start(); file = FILENAME }
bad { next }
FNR > 1 { quote() }
bad { next }
quoting { inside($0); next }
{ outside($0) }
END { if (mode != "name") { if (NR == 0) start(); finish() } }
'

