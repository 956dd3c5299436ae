#!/bin/sh
# Make sure that programs are there: install what is missing where that is possible, else say in one line what to install.
#
# Usage: sh deploy/need.sh PROGRAM:PACKAGE...     nginx:nginx-light, or with other names for the program: a|b:PACKAGE
# Installs with apt-get, as root only. Exit status: 0 when everything is there.
set -u
PATH="$PATH:/usr/sbin:/usr/local/sbin" # Debian keeps nginx there, which is not on an ordinary user's PATH

is_there() {
    for program in $(echo "$1" | tr '|' ' '); do
        command -v "$program" >/dev/null 2>&1 && return 0
    done
    return 1
}

packages=""
for pair in "$@"; do
    is_there "${pair%%:*}" || packages="$packages ${pair##*:}"
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
