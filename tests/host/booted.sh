#!/bin/bash
# The service for real where no systemd runs: a clean Debian root is booted with systemd in namespaces of its own, and
# deploy/install.sh installs and starts the service there. Run it with `make test-host`. It needs root, debootstrap, a network
# and a host that lets root make control groups. It shows: `systemctl start` returns when the stack serves; no request fails when
# supervisord is killed and systemd starts it again, nor at a reload; `systemctl stop` ends every process.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/host/clean_root.sh
unshare --pid --mount --cgroup --net --fork true 2>/dev/null || { echo "not run: booted: this host does not allow new namespaces"; exit 0; }
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    group=/sys/fs/cgroup/tableside-boot-$$ groups='mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"'
else
    group=/sys/fs/cgroup/systemd/tableside-boot-$$
    groups='mount -t tmpfs tmpfs "$root/sys/fs/cgroup" -o mode=755; mkdir "$root/sys/fs/cgroup/systemd"
        mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"'
fi
mkdir "$group" 2>/dev/null || { echo "not run: booted: this host does not let root make control groups"; exit 0; }
rmdir "$group"
began=$SECONDS
clean_root "booted"
outside=""
before_leaving() {
    [ -z "$outside" ] || kill -KILL "$outside" 2>/dev/null || true # --kill-child: everything in its namespaces ends too
    [ -z "$outside" ] || wait "$outside" 2>/dev/null || true
    for _ in $(seq 50); do
        find "$group" -depth -mindepth 0 -type d -exec rmdir {} + 2>/dev/null || true
        [ -d "$group" ] || break
        sleep 0.1
    done
}
fail() { echo "booted: $1" >&2; tail -n 20 "$root/boot.out" >&2; inside journalctl -u tableside -n 40 --no-pager >&2 || true; exit 1; }

mkdir -p "$root/checkout"
git ls-files -z | xargs -0 tar -c | tar -x -C "$root/checkout"
within "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends systemd dbus curl procps" \
    >"$root/out" 2>&1 || { tail -n 5 "$root/out"; exit 1; }
within "sh /checkout/deploy/install.sh --examples --no-start" >"$root/out" 2>&1 || { tail -n 20 "$root/out"; exit 1; }
unmount_root "$root" # the booted system has its own

cat >"$root/boot.sh" <<EOF
set -e
root=$root
mount --make-rprivate /
mount --bind "\$root" "\$root"
mount -t proc proc "\$root/proc"
mount -t sysfs sysfs "\$root/sys"
$(echo "$groups")
mount -t tmpfs tmpfs "\$root/run" -o mode=755
mount -t tmpfs tmpfs "\$root/dev" -o mode=755
for each in null zero full random urandom tty; do touch "\$root/dev/\$each"; mount --bind "/dev/\$each" "\$root/dev/\$each"; done
mkdir "\$root/dev/shm" "\$root/dev/pts"
mount -t tmpfs tmpfs "\$root/dev/shm" -o mode=1777
mount -t devpts devpts "\$root/dev/pts" -o newinstance,ptmxmode=0666
ln -s pts/ptmx "\$root/dev/ptmx"
ln -s /proc/self/fd "\$root/dev/fd"
exec chroot "\$root" env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system systemd.unit=multi-user.target
EOF
mkdir "$group"
(
    echo $BASHPID >"${group}/cgroup.procs"
    exec unshare --pid --mount --cgroup --ipc --uts --net --fork --kill-child sh "$root/boot.sh"
) >"$root/boot.out" 2>&1 &
outside=$!
inside() {
    nsenter -t "$(ps -o pid= --ppid "$outside" | tr -d ' ')" --pid --mount --cgroup --net --ipc --uts chroot "$root" \
        env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
for _ in $(seq 300); do inside systemctl is-system-running 2>/dev/null | grep -q 'running\|degraded' && break; sleep 0.2; done
inside systemctl is-system-running 2>/dev/null | grep -q 'running\|degraded' || fail "systemd does not boot"

inside sh /checkout/deploy/install.sh >"$root/out" 2>&1 || { cat "$root/out"; fail "install.sh failed"; }
inside systemctl is-enabled --quiet tableside || fail "the service is not enabled"
cat >"$root/ask.sh" <<'EOF'
curl -s -m 20 -o /dev/null -w '%{http_code}\n' http://127.0.0.1:8080/v1/models/iris:predict -d '{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
EOF
[ "$(inside sh /ask.sh)" = 200 ] || fail "it has started and does not serve"
inside systemctl show -p StatusText tableside | grep -q 'StatusText=serves' || fail "it has no status text"
cat >"$root/part.sh" <<'EOF'
(while [ ! -e /done ]; do sh /ask.sh; done >/answers) &
asking=$!
before=$(systemctl show -p MainPID --value tableside)
kill -KILL "$before"
for _ in $(seq 600); do
    now=$(systemctl show -p MainPID --value tableside)
    [ "$now" != 0 ] && [ "$now" != "$before" ] && [ "$(systemctl is-active tableside)" = active ] && break
    sleep 0.2
done
[ "$(systemctl is-active tableside)" = active ] && [ "$now" != "$before" ] || exit 1
systemctl reload tableside || exit 2
touch /done
wait "$asking"
systemctl stop tableside || exit 3
[ "$(systemctl show -p Result --value tableside)" = success ] || exit 4
! pgrep -u tableside >/dev/null || exit 5
EOF
inside sh /part.sh || fail "part $? of the test: 1 started again after a SIGKILL, 2 reload, 3 and 4 stop, 5 processes are left"
answers=$(sort "$root/answers" | uniq -c | tr -s ' \n' ' ')
[ "$(sort -u "$root/answers")" = 200 ] || fail "answers:$answers"
echo "booted: started when ready, taken over after a SIGKILL of supervisord, reloaded (answers:$answers), stopped: $((SECONDS - began)) s"
