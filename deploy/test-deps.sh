#!/usr/bin/env bash
# What the tests need beside Python packages: Debian's Chromium, which shows them the page. Without it they are skipped.
set -euo pipefail
command -v chromium >/dev/null && exit 0
root=(); [ "$(id -u)" = 0 ] || root=(sudo -n)
if ! command -v apt-get >/dev/null || ! "${root[@]}" true 2>/dev/null; then
  echo "no chromium, and no way to install it: the tests of the page will be skipped" >&2
  exit 0
fi
"${root[@]}" apt-get update -q
"${root[@]}" apt-get install -q -y --no-install-recommends chromium
