#!/usr/bin/env bash
# What the tests need beside Python packages: Debian's Chromium, which shows them the page. Without it they are skipped.
set -euo pipefail
command -v chromium >/dev/null && exit 0
root=(); [ "$(id -u)" = 0 ] || root=(sudo -n)
{ "${root[@]}" apt-get update -q && "${root[@]}" apt-get install -q -y --no-install-recommends chromium; } ||
  echo "no chromium, and no way to install it: the tests of the page will be skipped" >&2
