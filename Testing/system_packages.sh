#!/usr/bin/env bash
# Libraries that rendering without a display needs (module and window tests, preview application). The engine needs none.
# A browser opens the page of a cohort in the tests; where none can be installed they skip that.
set -euo pipefail

packages="libegl1 libgl1-mesa-dri libgl1 libglib2.0-0 libxkbcommon0 libdbus-1-3 libfontconfig1 fonts-dejavu-core"

missing=""
for package in $packages; do
    # Newer Debian and Ubuntu rename a library for 64-bit time: libglib2.0-0t64 stands in for libglib2.0-0.
    if ! dpkg-query -W -f='${Status}\n' "$package" "${package}t64" 2>/dev/null | grep -q "ok installed"; then
        missing="$missing $package"
    fi
done
if [ "$(id -u)" = 0 ] && ! command -v chromium chromium-browser google-chrome >/dev/null; then
    # Not on Ubuntu, whose packages of browsers are placeholders.
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 || true
fi
[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "note: this system has no apt-get; rendering needs EGL, OpenGL, GLib, xkbcommon, D-Bus, fontconfig and DejaVu fonts." >&2
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "Rendering needs system libraries. Run once, then retry:" >&2
    echo "    sudo apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
