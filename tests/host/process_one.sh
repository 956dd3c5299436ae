#!/bin/bash
# Runs `tableside run` as process 1 of a new PID namespace, as in a container, and ends it as `docker stop` does.
# It needs root, or a kernel that lets users make namespaces. Run it with `make test-host`.
set -euo pipefail
cd "$(dirname "$0")/../.."
spaces="--pid --fork --mount-proc --kill-child"
[ "$(id -u)" = 0 ] || spaces="--user --map-root-user $spaces"
# shellcheck disable=SC2086 - several words
if ! unshare $spaces true 2>/dev/null; then
    echo "not run: process 1: this host does not allow new PID namespaces"
    exit 0
fi
folder=$(mktemp -d)
export TABLESIDE__SERVER__RUN_DIR="$folder/run" TABLESIDE__SERVER__LAME_DUCK_S=1
export TABLESIDE__SERVER__LISTEN=127.0.0.1:18970 TABLESIDE__SERVER__ADMIN_LISTEN=127.0.0.1:18971
fail() { echo "process 1: $1" >&2; cat "$folder/out" >&2; kill -KILL "$outside" 2>/dev/null || true; rm -rf "$folder"; exit 1; }
for round in 1 2; do # the second one finds the run folder of the first, with pid files that name process 1
    # shellcheck disable=SC2086
    unshare $spaces .venv/bin/python -m tableside.cli run >"$folder/out" 2>&1 &
    outside=$!
    curl -sf -o /dev/null --retry 240 --retry-delay 1 --retry-all-errors http://127.0.0.1:18970/v2/health/ready || fail "not ready"
    init=$(ps -o pid= --ppid "$outside" | tr -d ' ')
    [ "$(awk '/^NSpid/ { print $NF }' "/proc/$init/status")" = 1 ] || fail "supervisord is not process 1"
    master=$(ps -eo pid=,args= | awk -v f="$folder" '/nginx: master/ && index($0, f) { print $1; exit }')
    kill -KILL "$master" # its workers become children of process 1, which reaps them
    sleep 3
    curl -sf -o /dev/null http://127.0.0.1:18970/v2/health/ready || fail "round $round: no answer after the death of nginx"
    kill -TERM "$init"
    saw=$(until s=$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:18970/v2/health/ready) && [ "$s" = 503 ]; do sleep 0.05; done; echo "$s")
    [ "$saw" = 503 ] || fail "readiness was $saw"
    wait "$outside" || fail "round $round: process 1 ended with status $?"
    if curl -s -o /dev/null http://127.0.0.1:18970/v2/health/live; then fail "round $round: the port is still open"; fi
done
rm -rf "$folder"
echo "process 1: ends in order, twice in the same run folder"
