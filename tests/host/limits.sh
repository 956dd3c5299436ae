#!/bin/bash
# What only a whole machine can show: real control groups, and a clock that is set. Run it with `make test-host`.
#   1. a CPU quota of one processor: one worker and one process of nginx
#   2. a memory limit below what the workers need: the start says so
#   3. with CLOCK=1, as root, on a machine of your own: the clock jumps an hour forward and back while requests are sent
# Each part prints `not run: WHY` where the machine cannot do it. Needs root for the control groups.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(mktemp -d)
data=127.0.0.1:18975
export TABLESIDE__SERVER__RUN_DIR="$folder/run" TABLESIDE__SERVER__LISTEN=$data TABLESIDE__SERVER__ADMIN_LISTEN=127.0.0.1:18976
groups=""
finish() {
    .venv/bin/tableside stop >/dev/null 2>&1 || true
    for group in $groups; do rmdir "$group" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT
fail() { echo "limits: $1" >&2; tail -n 30 "$folder/out" "$folder"/run/log/*.log >&2; exit 1; }

# group CONTROLLER FILE_V2 VALUE_V2 FILE_V1 VALUE_V1: make a control group with this limit; its folder is in $made.
group() {
    made=""
    if [ -f /sys/fs/cgroup/cgroup.controllers ] && grep -qw "$1" /sys/fs/cgroup/cgroup.subtree_control; then
        mkdir "/sys/fs/cgroup/tableside-$$-$1" 2>/dev/null || return 0
        made="/sys/fs/cgroup/tableside-$$-$1"
        echo "$3" >"$made/$2" || made=""
    elif [ -d "/sys/fs/cgroup/$1" ]; then
        mkdir "/sys/fs/cgroup/$1/tableside-$$" 2>/dev/null || return 0
        made="/sys/fs/cgroup/$1/tableside-$$"
        echo "$5" >"$made/$4" || made=""
    fi
    groups="$groups $made"
}

# start [GROUP]: start the stack, in this control group, and wait until it is ready.
start() {
    rm -rf "$folder/run"
    (
        [ -z "${1:-}" ] || echo $BASHPID >"$1/cgroup.procs"
        exec .venv/bin/tableside run
    ) >"$folder/out" 2>&1 &
    curl -sf -o /dev/null --retry 300 --retry-delay 1 --retry-all-errors "http://$data/v2/health/ready" || fail "not ready"
}

predict() { curl -s -m 20 -o /dev/null -w '%{http_code}' "http://$data/v1/models/iris:predict" -d '{"instances": [[5.1, 3.5, 1.4, 0.2]]}'; }

group cpu cpu.max "100000 100000" cpu.cfs_quota_us 100000
if [ -z "$made" ]; then
    echo "not run: CPU quota: this user cannot make control groups here"
else
    start "$made"
    grep -q "worker_processes 1;" "$folder/run/nginx.conf" || fail "nginx does not follow the quota"
    workers=$(curl -s -H "Authorization: Bearer $(cat "$folder/run/admin.key")" http://127.0.0.1:18976/admin/api/workers | grep -o '"worker_slot"' | wc -l)
    [ "$workers" = 1 ] || fail "$workers workers with a quota of one processor"
    [ "$(predict)" = 200 ] || fail "no prediction under a quota"
    .venv/bin/tableside stop
    echo "CPU quota: one worker, one process of nginx"
fi

group memory memory.max 1000000000 memory.limit_in_bytes 1000000000
if [ -z "$made" ]; then
    echo "not run: memory limit: this user cannot make control groups here"
else
    export TABLESIDE__SERVER__WORKERS=20
    (
        echo $BASHPID >"$made/cgroup.procs"
        exec .venv/bin/python -c "import sys; from tableside.deployment import memory_fit; from tableside.settings import load; sys.stdout.write(memory_fit.warning(load()))"
    ) >"$folder/out"
    unset TABLESIDE__SERVER__WORKERS
    grep -q "20 workers need .* of this control group is 1 GB: set server.workers to 1[0-9]" "$folder/out" || fail "no warning"
    cat "$folder/out"
fi

if [ "${CLOCK:-}" != 1 ] || [ "$(id -u)" != 0 ]; then
    echo "not run: clock: set CLOCK=1 as root, on a machine whose clock may be an hour wrong for a minute"
else
    start
    for jump in "+1 hour" "-1 hour"; do
        date -s "$jump" >/dev/null || { echo "not run: clock: it cannot be set here"; exit 0; }
        for _ in $(seq 50); do
            status=$(predict)
            [ "$status" = 200 ] || { date -s "$([ "$jump" = "+1 hour" ] && echo "-1 hour" || echo "+1 hour")" >/dev/null; fail "$status after a jump of $jump"; }
        done
    done
    echo "clock: 100 of 100 requests answered after jumps of an hour"
fi
