#!/bin/sh
# Unpacks Ceph RGW (mon, osd, radosgw) from the machine's Debian archive into .cache/ceph, for the S3 tests.
# Needs no root and installs nothing: the package lists are kept in the cache folder too.
# Usage: install-rgw.sh [TARGET]
set -eu

repo=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
target=${1:-$repo/.cache/ceph}
root=$target/root

fail() {
  echo "install-rgw: $*" >&2
  exit 1
}

# Starts every program once: that they load their libraries is the only proof that counts.
works() {
  set -- "$root/usr/lib/$(uname -m)-linux-gnu"
  [ -x "$root/usr/bin/radosgw" ] || return 1
  libraries=$1:$1/ceph:$root/lib/$(uname -m)-linux-gnu
  for program in radosgw radosgw-admin ceph-mon ceph-osd monmaptool; do
    LD_LIBRARY_PATH=$libraries "$root/usr/bin/$program" --version >/dev/null 2>"$target/error.log" || return 1
  done
  python=/usr/bin/python3
  [ -x "$python" ] || python=$root/usr/bin/python3
  LD_LIBRARY_PATH=$libraries PYTHONPATH=$root/usr/lib/python3/dist-packages \
    "$python" "$root/usr/bin/ceph" --version >/dev/null 2>"$target/error.log"
}

if works; then
  echo "install-rgw: already there: $root"
  exit 0
fi

for tool in apt-get dpkg dpkg-query; do
  command -v "$tool" >/dev/null || fail "needs $tool; Ceph is taken from the Debian or Ubuntu archive. On another system install radosgw, ceph-mon and ceph-osd yourself, so that they are on PATH."
done
rm -rf "$root" "$target/apt" "$target/debs"
mkdir -p "$root" "$target/apt/lists/partial" "$target/apt/cache/archives/partial" "$target/debs"

# A private apt state: an ordinary user can refresh it, and the machine's own stays as it is.
apt() {
  command apt-get -q -o "Dir::State=$target/apt" -o "Dir::State::lists=$target/apt/lists" \
    -o Dir::State::status=/var/lib/dpkg/status -o "Dir::Cache=$target/apt/cache" \
    -o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

echo "install-rgw: reading the package lists"
apt update >"$target/apt.log" 2>&1 || fail "apt-get update failed: $(tail -n 3 "$target/apt.log")"

plan=$(apt install -s --no-install-recommends radosgw ceph-mon ceph-osd 2>"$target/error.log") ||
  fail "the archive offers no installable radosgw, ceph-mon and ceph-osd: $(tail -n 3 "$target/error.log")"
packages=$(printf '%s\n' "$plan" | awk '$1 == "Inst" { print $2 }')
[ -n "$packages" ] || fail "radosgw, ceph-mon and ceph-osd are installed already; nothing to unpack"

echo "install-rgw: downloading $(printf '%s\n' "$packages" | wc -l) packages"
# shellcheck disable=SC2086 # one word per package is the point
(cd "$target/debs" && apt download $packages >"$target/apt.log" 2>&1) ||
  fail "download failed: $(tail -n 3 "$target/apt.log")"

for deb in "$target"/debs/*.deb; do
  dpkg -x "$deb" "$root"
done
rm -rf "$target/debs" "$target/apt"

works || fail "unpacked, but it does not start: $(cat "$target/error.log")"
rm -f "$target/error.log" "$target/apt.log"
echo "install-rgw: ready: $root"
