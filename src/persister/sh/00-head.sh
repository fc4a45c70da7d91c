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
TAB='	'
ALNUM=ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789
# All of printable ASCII, for bracket patterns: ranges mean other things in other locales.
# shellcheck disable=SC2016,SC1003
PRINTABLE=']!"#$%&'"'"'()*+,./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\^_`abcdefghijklmnopqrstuvwxyz{|}~ -'
EMPTY_SHA256=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
S3_ATTEMPTS=8
HTTP_ATTEMPTS=6
# Bodies up to here are copied in one go; bigger ones are hashed while the disk is still writing.
SMALL_BLOCKS=8

