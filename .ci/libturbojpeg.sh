#!/bin/sh
# Puts libturbojpeg.so.0 into VENV/lib unless the system has one. Never fails: without it Pillow reads the JPEG files.
# Usage: libturbojpeg.sh VENV
set -u
venv=$1
without="libturbojpeg is missing, Pillow will read the JPEG super images (slower)"

if "$venv/bin/python" -c 'import ctypes; ctypes.CDLL("libturbojpeg.so.0")' 2>/dev/null || [ -e "$venv/lib/libturbojpeg.so.0" ]; then
  exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
  echo "$without: install your system's libjpeg-turbo to change that"
  exit 0
fi

work=$(mktemp -d) || exit 0
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root"
apt() {
  apt-get -q -o Dir::State="$work" -o Dir::State::status=/var/lib/dpkg/status -o Dir::State::lists="$work/lists" \
    -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" -o APT::Get::List-Cleanup=0 \
    -o Acquire::Languages=none -o Acquire::Retries=2 -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 "$@"
}
echo "Fetching libturbojpeg for $venv ..."
cd "$work" || exit 0
apt update >"$work/log" 2>&1
# Debian's name, then Ubuntu's.
apt download libturbojpeg0 >>"$work/log" 2>&1 || apt download libturbojpeg >>"$work/log" 2>&1
cd "$OLDPWD" || exit 0
for package in "$work"/libturbojpeg*.deb; do
  [ -e "$package" ] && dpkg-deb -x "$package" "$work/root"
done
library=$(find "$work/root" -name 'libturbojpeg.so.0' | head -n 1)
if [ -z "$library" ]; then
  echo "$without: apt-get could not fetch it: $(grep -E '^(E|Err|W):' "$work/log" | tail -n 1)"
  exit 0
fi
cp -P "$(dirname "$library")"/libturbojpeg.so.0* "$venv/lib/"
