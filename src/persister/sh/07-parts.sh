
# ---------------------------------------------------------------- uploads in parts, by whatever means

# Bodies from here on can go up in parts, and those beyond the second size do so from the start: for all others one request
# is faster, until it broke off once or a process died over it. The other implementation draws the same lines.
DIVISIBLE_FROM=67108864
LARGEST_SINGLE_PUT=1073741824
PART_MIB=16
# S3 takes 10,000: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
MAX_PARTS=9000

# Reads how far the upload of the result in r_file is, by either means, into the u_ variables; fails when there is none that can be read.
load_upload() {
  u_v='' u_key='' u_objectKey='' u_bucket='' u_endpoint='' u_sha256='' u_uploadId='' u_partBytes='' u_parts=''
  [ -n "$spooled" ] && [ -f "$folder/.upload/$r_file" ] || return 1
  problem=unreadable
  eval "$(awk -v mode=upload "$AWK" "$folder/.upload/$r_file" 2>/dev/null)"
  [ -z "$problem" ]
}

# Writes down how far the upload is, as $print_upload has it. Without room for that it goes on; it only cannot be resumed.
save_upload() {
  [ -n "$spooled" ] || return 0
  [ -d "$folder/.upload" ] || mkdir -p -- "$folder/.upload" 2>/dev/null || return 0
  temporary "$folder"
  state=$R
  { $print_upload >"$state" && sync_files "$state" && mv -f -- "$state" "$folder/.upload/$r_file"; } 2>/dev/null || rm -f -- "$state"
}

# Puts what an upload is kept with, besides its own part, into variables in the form of JSON.
describe_place() {
  describe_text "$s3_bucket" && u_bucket_json=$t_json
  u_endpoint_json=null
  [ -z "$s3_endpoint" ] || { quote "$s3_endpoint" && u_endpoint_json="\"$R\""; }
  quote "$u_uploadId" && u_id_json=$R
}

forget_upload() { [ -z "$spooled" ] || [ ! -e "$folder/.upload/$r_file" ] || rm -f -- "$folder/.upload/$r_file"; }

# Chooses how long each part of the body is.
choose_part_size() {
  part_mib=$(((r_size + MAX_PARTS - 1) / MAX_PARTS))
  part_mib=$(((part_mib + 1048575) / 1048576))
  [ $part_mib -ge $PART_MIB ] || part_mib=$PART_MIB
  part_bytes=$((part_mib * 1048576))
}

# Prints part $1 of the body.
cut_part() { dd if="$b_path" bs=1048576 skip=$((($1 - 1) * part_mib)) count=$part_mib 2>/dev/null; }

# Sends every fourth of the waiting parts, from the ${1}th on, by $put_part, and prints a line for each: its number and its
# receipt, which may be empty.
send_lane() {
  turn=0 unique=$unique-$1
  for number in $waiting; do
    turn=$(((turn + 1) % 4))
    [ $turn = "$1" ] || continue
    # Nobody is left to note what is sent, or another lane has failed for good.
    kill -0 $$ 2>/dev/null && [ ! -e "$halt" ] || return 0
    part_sha=$(cut_part "$number" | $SHA256_BIG) && part_sha=${part_sha%% *}
    repeat $S3_ATTEMPTS $put_part || {
      printf '' 2>/dev/null >"$halt"
      printf 'failed\t%s\t%s\t%s\n' "$e_code" "$e_retry" "$e_message"
      return 0
    }
    printf '%s\t%s\n' "$number" "$part_receipt"
  done
}

# Notes the parts that have arrived, as they do, by $note_part, and passes their lines on.
note_parts() {
  while IFS= read -r line; do
    printf '%s\n' "$line"
    case $line in failed*) continue ;; esac
    $note_part "$line"
    save_upload
    arrived=$((arrived + part_bytes))
    [ -z "$progress" ] || printf '%s\n' $((arrived < r_size ? arrived : r_size)) >"$scratch/sent"
  done
}

# Sends the parts that are not in u_parts, a line for each with its number first, four at a time, and adds them. The lanes are
# a pipeline, not background commands, which would be deaf to an interrupt from the keyboard.
send_parts() {
  waiting=$(printf '%s' "$u_parts" | awk -v count=$(((r_size + part_bytes - 1) / part_bytes)) '
    { there[$1 + 0] } END { for (n = 1; n <= count; n++) if (!(n in there)) print n }')
  arrived=0
  for number in $waiting; do arrived=$((arrived + 1)); done
  arrived=$((r_size - arrived * part_bytes)) arrived=$((arrived > 0 ? arrived : 0))
  halt=$folder/.tmp-$$-$unique-halt
  [ -n "$spooled" ] || { need_scratch && halt=$scratch/halt; }
  keep_track "$halt"
  outcome=$({ send_lane 1 >&5 | send_lane 2 >&5 | send_lane 3 >&5 | send_lane 0 >&5; } 5>&1 </dev/null | note_parts)
  rm -f -- "$halt"
  forget "$halt"
  fresh='' lane_failure=''
  IFS=$NL
  # shellcheck disable=SC2086
  set -- $outcome
  unset IFS
  for line; do
    case $line in
      failed*) [ -n "$lane_failure" ] || lane_failure=${line#*"$TAB"} ;;
      *) u_parts=$u_parts$line$NL ;;
    esac
  done
  [ -n "$lane_failure" ] || return 0
  e_code=${lane_failure%%"$TAB"*} R=${lane_failure#*"$TAB"}
  e_retry=${R%%"$TAB"*} e_message=${R#*"$TAB"} e_wait=0
  return 1
}
