# ---------------------------------------------------------------- digests

if command -v sha256sum >/dev/null 2>&1; then SHA256=sha256sum; else SHA256='openssl dgst -sha256 -r'; fi
# openssl uses the processor's own instructions, which for big bodies outweighs its slow start.
if command -v openssl >/dev/null 2>&1; then SHA256_BIG='openssl dgst -sha256 -r'; else SHA256_BIG=$SHA256; fi

perl=''
! command -v perl >/dev/null 2>&1 || perl=1

# Puts the digest of text $1 into R, in hex.
sha256_text() {
  R=$(printf '%s' "$1" | $SHA256)
  R=${R%% *}
}

# Puts the Base64 of the digest $1, in hex, into R.
to_base64() {
  hex=$1 R=''
  set -- A B C D E F G H I J K L M N O P Q R S T U V W X Y Z a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9 + /
  while :; do
    case $hex in
      ??????*)
        rest=${hex#??????} bits=$((0x${hex%"$rest"})) hex=$rest
        eval "R=\$R\${$(((bits >> 18) + 1))}\${$(((bits >> 12 & 63) + 1))}\${$(((bits >> 6 & 63) + 1))}\${$(((bits & 63) + 1))}"
        ;;
      *)
        # 32 bytes leave two of them for the last group.
        bits=$((0x$hex << 2))
        eval "R=\$R\${$(((bits >> 12) + 1))}\${$(((bits >> 6 & 63) + 1))}\${$(((bits & 63) + 1))}=" && return
        ;;
    esac
  done
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

