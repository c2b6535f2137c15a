#!/bin/sh
# Installs Chromium and its driver for the tests of the page, where apt and root are there. Never fails: without them
# these tests are skipped, and pytest's last lines say so.
set -u
if command -v chromedriver >/dev/null && command -v chromium >/dev/null; then
  exit 0
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  echo "chromium and chromedriver are missing, the tests of the page will be skipped: they are installed as root, by apt"
  exit 0
fi
echo "Installing Chromium for the tests of the page ..."
log=$(mktemp)
apt-get -q update >"$log" 2>&1
DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends chromium chromium-driver >>"$log" 2>&1 ||
  echo "Chromium could not be installed, the tests of the page will be skipped: $(grep -E '^(E|Err|W):' "$log" | tail -n 1)"
rm -f "$log"
