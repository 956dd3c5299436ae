#!/bin/sh
# The command `tableside` of an installed server: with its settings, and for root as its user, who owns what it writes.
export TABLESIDE_CONFIG="${TABLESIDE_CONFIG:-/etc/tableside/tableside.toml}"
program=/opt/tableside/current/.venv/bin/tableside
[ "$(id -u)" = 0 ] || exec "$program" "$@"
export HOME=/var/lib/tableside
exec setpriv --reuid=tableside --regid=tableside --init-groups "$program" "$@"
