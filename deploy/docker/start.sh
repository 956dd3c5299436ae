#!/bin/sh
# Process 1 of the container: it starts the stack, copies its logs to standard output, and ends when the stack has ended.
#
# The stack writes its logs into files of limited size, so that a reader of standard output which is slow or stuck holds up
# no request. tail ends by itself after the stack, with the last lines of the drain.
set -u
folder=${TABLESIDE_LOG_FOLDER:-/var/lib/tableside/run/log}
tableside run &
stack=$!
(
    cd /
    exec tail --quiet --lines=0 --follow=name --retry --sleep-interval=0.5 --pid="$stack" \
        "$folder/web.log" "$folder/nginx-access.log" "$folder/nginx-error.log" "$folder/nginx.log" \
        "$folder/supervisord.log" "$folder/audit.log" 2>/dev/null
) &
logs=$!
trap 'kill -TERM "$stack" 2>/dev/null' TERM INT
trap 'tableside restart >/dev/null 2>&1 &' HUP
while :; do # a signal ends `wait` early; process 1 also reaps whatever loses its parent meanwhile
    wait "$stack"
    status=$?
    kill -0 "$stack" 2>/dev/null || break
done
wait "$logs"
exit "$status"
