#!/bin/sh
# Make sure that programs and shared libraries are there: install what is missing where that is possible, else say in one
# line what to install.
#
# Usage: sh deploy/need.sh NAME:PACKAGE...     nginx:nginx-light, with other names for it: a|b:PACKAGE, or libx.so.1:PACKAGE
# Installs with apt-get, as root only. Exit status: 0 when everything is there.
set -u
PATH="$PATH:/usr/sbin:/usr/local/sbin" # Debian keeps nginx there, which is not on an ordinary user's PATH

is_there() {
    for name in $(echo "$1" | tr '|' ' '); do
        case $name in
        *.so.*) ldconfig -p 2>/dev/null | grep -q "^[[:space:]]*$name " && return 0 ;;
        *) command -v "$name" >/dev/null 2>&1 && return 0 ;;
        esac
    done
    return 1
}

packages=""
for pair in "$@"; do
    is_there "${pair%%:*}" && continue
    case "$packages " in
    *" ${pair##*:} "*) ;; # named already: it has several of the programs
    *) packages="$packages ${pair##*:}" ;;
    esac
done
[ -n "$packages" ] || exit 0

reason=""
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "tableside: installing$packages" >&2
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # one word a package
    said=$( (apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages) 2>&1 >/dev/null) && exit 0
    reason=" (apt-get: $(echo "$said" | grep -m 1 '^E:' || echo 'it failed'))"
fi
echo "tableside: please install$packages with your package manager (Debian, Ubuntu: sudo apt-get install$packages)$reason" >&2
exit 1
