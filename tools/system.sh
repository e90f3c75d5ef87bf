#!/usr/bin/env bash
# Makes sure that the machine has what pip cannot install: Chromium (for the browser tests) and
# Python's venv module. Missing ones are installed with apt when that is allowed; if not,
# one line says what to install.
#
#   tools/system.sh chromium
#   tools/system.sh venv [PYTHON]
set -euo pipefail

apt_install() { # apt_install PACKAGE...
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then sudo=(sudo -n); fi
  command -v apt-get >/dev/null || return 1
  if [ "$(id -u)" -ne 0 ]; then sudo -n true 2>/dev/null || return 1; fi
  echo "installing with apt: $*" >&2
  "${sudo[@]}" apt-get update -qq >&2 </dev/null &&
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2 </dev/null
}

fail() { echo "error: $*" >&2; exit 1; }

chromium_present() {
  [ -n "${CHROMIUM:-}" ] && [ -x "$CHROMIUM" ] && return
  local name
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null && return
  done
  [ -x "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" ]
}

venv_works() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

case "${1:-}" in
  chromium)
    chromium_present || apt_install chromium fonts-dejavu-core || true
    chromium_present || fail "Chromium is missing: install it (Debian: apt-get install chromium) or set CHROMIUM to its path"
    ;;
  venv)
    python=${2:-python3}
    venv_works "$python" || apt_install python3-venv || true
    venv_works "$python" || fail "$python cannot make virtual environments: install its venv module (Debian: apt-get install python3-venv)"
    ;;
  *) fail "usage: tools/system.sh chromium | venv [PYTHON]" ;;
esac
