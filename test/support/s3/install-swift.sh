#!/bin/sh
# Unpacks OpenStack Swift with its S3 API from the machine's Debian archive into .cache/swift, for the S3 tests.
# Needs no root and installs nothing: the package lists are kept in the cache folder too.
# Usage: install-swift.sh [TARGET]
set -eu

repo=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
target=${1:-$repo/.cache/swift}
root=$target/root

fail() {
  echo "install-swift: $*" >&2
  exit 1
}

# Loads what a server loads: that it finds its libraries is the only proof that counts.
works() {
  [ -d "$root/usr/lib/python3/dist-packages/swift" ] && [ -x /usr/bin/python3 ] || return 1
  LD_LIBRARY_PATH=$root/usr/lib/$(uname -m)-linux-gnu PYTHONPATH=$root/usr/lib/python3/dist-packages \
    /usr/bin/python3 -c 'import swift.proxy.server, swift.obj.server, swift.common.middleware.s3api.s3api' \
    2>"$target/error.log"
}

if works; then
  echo "install-swift: already there: $root"
  exit 0
fi

for tool in apt-get dpkg /usr/bin/python3; do
  command -v "$tool" >/dev/null || fail "needs $tool; Swift is taken from the Debian or Ubuntu archive."
done
rm -rf "$root" "$target/apt" "$target/debs"
mkdir -p "$root" "$target/apt/lists/partial" "$target/apt/cache/archives/partial" "$target/debs"

# A private apt state: an ordinary user can refresh it, and the machine's own stays as it is.
apt() {
  command apt-get -q -o "Dir::State=$target/apt" -o "Dir::State::lists=$target/apt/lists" \
    -o Dir::State::status=/var/lib/dpkg/status -o "Dir::Cache=$target/apt/cache" \
    -o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

echo "install-swift: reading the package lists"
apt update >"$target/apt.log" 2>&1 || fail "apt-get update failed: $(tail -n 3 "$target/apt.log")"

plan=$(apt install -s --no-install-recommends python3-swift 2>"$target/error.log") ||
  fail "the archive offers no installable python3-swift: $(tail -n 3 "$target/error.log")"
packages=$(printf '%s\n' "$plan" | awk '$1 == "Inst" { print $2 }')
[ -n "$packages" ] || fail "python3-swift is installed already; nothing to unpack"

echo "install-swift: downloading $(printf '%s\n' "$packages" | wc -l) packages"
# shellcheck disable=SC2086 # one word per package is the point
(cd "$target/debs" && apt download $packages >"$target/apt.log" 2>&1) ||
  fail "download failed: $(tail -n 3 "$target/apt.log")"

for deb in "$target"/debs/*.deb; do
  dpkg -x "$deb" "$root"
done
rm -rf "$target/debs" "$target/apt"

works || fail "unpacked, but it does not load: $(cat "$target/error.log")"
rm -f "$target/error.log" "$target/apt.log"
echo "install-swift: ready: $root"
