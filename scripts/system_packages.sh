#!/usr/bin/env bash
# Debian packages that the tests use: bubblewrap for the sandbox, Chromium for the reports. Needs root to install;
# without it, says what is missing, and those tests are skipped with that reason.
set -euo pipefail
missing=()
command -v bwrap >/dev/null || missing+=(bubblewrap)
command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
    echo "not installed: ${missing[*]} (the tests that need them are skipped)" >&2
fi
