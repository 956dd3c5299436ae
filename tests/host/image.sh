#!/bin/bash
# The steps of deploy/docker/Dockerfile in clean Debian roots, and the result as a container runs it: uid 10001, no rights, a
# read-only root, a process 1 of its own. Run it with `make test-host`. It needs root, debootstrap and a network, and no docker.
# It shows: the steps work on a clean Debian; the stack serves; its logs are on standard output; nothing but the volume and /tmp
# is written; SIGTERM drains, and the last lines are printed; the HEALTHCHECK fails before, succeeds while and fails after it serves.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/host/clean_root.sh
unshare --pid --mount --net --fork true 2>/dev/null || { echo "not run: image: this host does not allow new namespaces"; exit 0; }
clean_root "image"
unmount_root "$root" # the stages are copies of it
fail() { echo "image: $1" >&2; tail -n 40 "$root/out" >&2; exit 1; }
began=$SECONDS
python=${PYTHON:-.venv/bin/python}

stages=$(mktemp -d)
chmod 755 "$stages"
more_roots="$stages"
context=$(mktemp -d -p "$stages")
git ls-files -z | xargs -0 tar -c | tar -x -C "$context"
: >"$context/keys.json" # what must not get into an image
mkdir -p "$context/run" && : >"$context/run/admin.key"
image=$("$python" -m tests.host.dockerfile "$context" "$root" "$stages" ${PIP_CERT:+/etc/ssl/test-certificates.crt})
echo "== built after $((SECONDS - began)) s: $(du -sm "$image/opt" | cut -f 1) MB in /opt"
found=$(find "$image/opt/tableside" -name keys.json -o -name admin.key -o -name .git)
[ -z "$found" ] || fail "the image has $found"

# As a container: read-only but for the volume and /tmp, no rights, process 1, a network of its own with the image's ports.
# of_image WORD: the words of this instruction of the Dockerfile, for a shell.
of_image() { "$python" -c "
import pathlib, shlex, sys
from tests.host.dockerfile import read
stage = read(pathlib.Path('deploy/docker/Dockerfile').read_text())[-1]
words = [f'{k}={v}' for k, v in stage.environment().items()] if sys.argv[1] == 'ENV' else stage.words(sys.argv[1])
print(shlex.join(words))" "$1"; }
as_user="setpriv --reuid=10001 --regid=10001 --clear-groups --bounding-set=-all --no-new-privs env -i $(of_image ENV)"
cat >"$root/container.sh" <<EOF
set -e
mount --bind "$image" "$image"
mount -t tmpfs tmpfs "$image/tmp" -o mode=1777
mount --bind "$image/var/lib/tableside" "$image/var/lib/tableside"
mount --bind /dev "$image/dev"
mount -t tmpfs tmpfs "$image/dev/shm" -o mode=1777
mount -t proc proc "$image/proc"
mount -o remount,bind,ro "$image"
chroot "$image" ip link set lo up
exec chroot "$image" $as_user sh -c 'cd /var/lib/tableside && exec "\$@"' sh $(of_image CMD)
EOF
unshare --pid --mount --net --fork --kill-child sh "$root/container.sh" >"$root/out" 2>&1 &
outside=$!
for _ in $(seq 100); do init=$(ps -o pid= --ppid "$outside" | tr -d ' ') && [ -n "$init" ] && grep -q '^Uid:[[:space:]]*10001' "/proc/$init/status" && break; sleep 0.1; done
exec 9<"/proc/$init/ns/net"
within_network() { nsenter --net=/proc/self/fd/9 "$@"; }
# The HEALTHCHECK as docker runs it: in the root and the network of the container, with its user and variables.
health() { within_network chroot "$image" sh -c "exec $as_user $(of_image HEALTHCHECK)" 2>"$root/health.out"; }
says_unhealthy() { # of a container that does not serve; docker knows the statuses 0 and 1
    status=0
    health || status=$?
    if [ "$status" != 1 ] || ! grep -q "$2" "$root/health.out"; then
        cat "$root/health.out" >&2
        fail "HEALTHCHECK $1: status $status"
    fi
}
says_unhealthy "before it is ready" 'refused\|Service Unavailable'
for _ in $(seq 300); do health && break; sleep 1; done
health || fail "HEALTHCHECK of a container that serves: $(cat "$root/health.out")"
echo "== healthy after $((SECONDS - began)) s"
[ "$(awk '/^NSpid/ { print $NF }' "/proc/$init/status")" = 1 ] || fail "start.sh is not process 1"
[ "$(awk '/^Uid/ { print $2 }' "/proc/$init/status")" = 10001 ] || fail "it runs as $(awk '/^Uid/ { print $2 }' "/proc/$init/status")"
grep -q '^CapEff:[[:space:]]*0*$' "/proc/$init/status" || fail "it has capabilities"
answer=$(within_network curl -s -m 20 -H 'X-Request-ID: in-container' http://127.0.0.1:8080/v1/models/iris:predict -d '{"instances": [[5.1, 3.5, 1.4, 0.2]]}')
[ "$answer" = '{"predictions":["setosa"]}' ] || fail "prediction: $answer"
for _ in $(seq 100); do [ "$(grep -c in-container "$root/out")" -ge 2 ] && break; sleep 0.1; done
[ "$(grep -c in-container "$root/out")" -ge 2 ] || fail "the lines of gunicorn and nginx are not on standard output"
kill -TERM "$init"
wait "$outside" || fail "it ended with status $?"
says_unhealthy "after its end" refused
grep -q '"event": *"\(worker_stopping\|draining\|stopped\)' "$root/out" || grep -qi 'exiting\|shut' "$root/out" || fail "the end is not on standard output"
written=$(find "$image" -xdev -newer "$root/container.sh" -type f ! -path "$image/var/lib/tableside/*" ! -path "$image/tmp/*" | head)
[ -z "$written" ] || fail "written outside of the volume: $written"
echo "image: built in clean roots, served as uid 10001 from a read-only root, HEALTHCHECK told it, drained: $((SECONDS - began)) s"
