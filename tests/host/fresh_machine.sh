#!/bin/bash
# The two commands on a machine where nothing was installed by hand: a new Debian root with Python and make.
#
# Usage: tests/host/fresh_machine.sh
# Needs root, debootstrap and a network. Clones the project's last commit to a folder with a space in its name, and there runs,
# with an empty HOME and no package cache:
#   1. as an ordinary user without nginx: make run, a prediction by gunicorn, make stop
#   2. as that user: make test, which must say in one line what to install     3. as root: the same as 1., with nginx
#   4. as root: make test     5. as an ordinary user, now that root has installed the programs: make test
# Prints the seconds of each part. TEST=0 leaves out the last two parts.
set -eu
cd "$(dirname "$0")/../.."
project=$PWD
. tests/host/clean_root.sh
command -v git >/dev/null || { echo "not run: fresh machine: install git"; exit 0; }
clean_root "fresh machine"
chroot "$root" sh -c "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 make git ca-certificates >/dev/null"
# Not the variable PIP_CERT: a fresh machine has none.
[ -z "${PIP_CERT:-}" ] || cp "$PIP_CERT" "$root/etc/ssl/certs/ca-certificates.crt"

# as USER COMMAND: in the clone, with an empty HOME and nothing of this shell's environment.
as() {
    rm -rf "$root/home/$1-home"
    chroot "$root" sh -c "mkdir -p /home/$1-home && chown $1 /home/$1-home"
    chroot "$root" su "$1" -s /bin/bash -c "cd '/srv/$1/table side' && exec env -i HOME=/home/$1-home PIP_NO_CACHE_DIR=1 \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 ${CI:+CI=$CI} $2"
}

clone() {
    rm -rf "$root/srv/$1"
    mkdir -p "$root/srv/$1"
    git clone -q "$project" "$root/srv/$1/table side"
    chroot "$root" chown -R "$1" "/srv/$1"
}

predicts() {
    began=$SECONDS
    as "$1" "make run" >"$root/$1.run" 2>&1 &
    until grep -q "Tableside is" "$root/$1.run"; do
        kill -0 $! 2>/dev/null || { cat "$root/$1.run"; echo "FAILED: make run as $1"; exit 1; }
        [ $((SECONDS - began)) -lt 600 ] || { cat "$root/$1.run"; echo "FAILED: make run as $1 took 10 minutes"; exit 1; }
        sleep 0.5
    done
    grep -q "Tableside is ready" "$root/$1.run" || { cat "$root/$1.run"; echo "FAILED: not ready"; exit 1; }
    echo "== make run as $1: ready after $((SECONDS - began)) s"
    cat "$root/$1.run"
    as "$1" "python3 -c \"import urllib.request as u; print(u.urlopen(u.Request('http://127.0.0.1:8080/v1/models/iris:predict', b'{\\\"instances\\\": [[5.1, 3.5, 1.4, 0.2]]}')).read().decode())\""
    as "$1" "make stop"
    wait
}

chroot "$root" sh -c 'id guest >/dev/null 2>&1 || useradd --create-home guest'
# The Python packages that Debian keeps apart; an ordinary user cannot install them.
chroot "$root" sh -c "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null"
clone guest
predicts guest
echo "== make test as guest, without nginx and chromium"
if as guest "make test" >"$root/guest.test" 2>&1; then echo "FAILED: it passed"; exit 1; fi
grep -v '^make' "$root/guest.test" | tail -n 3
chroot "$root" sh -c "apt-get purge -y -qq python3-venv >/dev/null; apt-get autoremove -y -qq >/dev/null"
clone root
predicts root
tests() {
    began=$SECONDS
    CI=true as "$1" "make test" 2>&1 | tee "$root/$1.test" | tail -n 40
    echo "== make test as $1: $((SECONDS - began)) s"
    grep -q ' 0 failed' "$root/$1.test"
}

if [ "${TEST:-1}" = 1 ]; then
    tests root
    chroot "$root" sh -c "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null"
    clone guest
    tests guest
fi
