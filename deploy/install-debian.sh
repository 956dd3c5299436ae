#!/bin/sh
# Install Debian packages where that is possible; else say, in one line, what to install.
set -u
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "tableside: installing $*" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null && exit 0
fi
echo "tableside: please install $* with your package manager (Debian, Ubuntu: sudo apt-get install $*)" >&2
exit 1
