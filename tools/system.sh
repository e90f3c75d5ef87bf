#!/usr/bin/env bash
# Makes sure that the machine has what pip cannot install: Chromium (for the browser tests), Firefox
# with what drives it (for one of them) and Python's venv module. Missing ones are installed with apt
# and npm when that is allowed; if not, one line says what to install. Where Debian has it, Chromium
# comes with its shell without windows too, in which the tests take half as long.
#
#   tools/system.sh chromium
#   tools/system.sh firefox
#   tools/system.sh node                 (for `make stryker`)
#   tools/system.sh java                 (for `make epub`)
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

shell_or_none() { # there, or not to be had
  command -v chromium-headless-shell >/dev/null || ! apt-cache show chromium-headless-shell >/dev/null 2>&1
}

firefox_present() {
  [ -n "${FIREFOX:-}" ] && [ -x "$FIREFOX" ] && return
  command -v firefox-esr >/dev/null || command -v firefox >/dev/null ||
    [ -x "/Applications/Firefox.app/Contents/MacOS/firefox" ]
}

node_present() { node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' 2>/dev/null; }

# puppeteer-core as its lock file has it; it brings no browser of its own.
driver_present() {
  local driver="$(dirname "$0")/main_path"
  [ "$driver/node_modules/.package-lock.json" -nt "$driver/package-lock.json" ] && return
  npm ci --prefix "$driver" --ignore-scripts --no-audit --no-fund --silent >&2 </dev/null &&
    touch "$driver/node_modules/.package-lock.json"
}

java_present() { java -version >/dev/null 2>&1; }

venv_works() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

case "${1:-}" in
  chromium)
    chromium_present || apt_install chromium fonts-dejavu-core || true
    shell_or_none || apt_install chromium-headless-shell || true
    chromium_present || fail "Chromium is missing: install it (Debian: apt-get install chromium) or set CHROMIUM to its path"
    ;;
  firefox)
    firefox_present || apt_install firefox-esr || true
    firefox_present || fail "Firefox is missing: install it (Debian: apt-get install firefox-esr) or set FIREFOX to its path"
    "$0" node
    driver_present || fail "puppeteer-core did not install: run npm ci in tools/main_path to see why"
    ;;
  node)
    node_present || apt_install nodejs npm || true
    node_present || fail "Node.js 18 or newer is missing: install it (Debian: apt-get install nodejs npm)"
    ;;
  java)
    java_present || apt_install default-jre-headless || true
    java_present || fail "Java is missing: install it (Debian: apt-get install default-jre-headless)"
    ;;
  venv)
    python=${2:-python3}
    venv_works "$python" || apt_install python3-venv || true
    venv_works "$python" || fail "$python cannot make virtual environments: install its venv module (Debian: apt-get install python3-venv)"
    ;;
  *) fail "usage: tools/system.sh chromium | firefox | node | java | venv [PYTHON]" ;;
esac
