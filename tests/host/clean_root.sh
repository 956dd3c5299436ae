# To be sourced: a clean Debian root in a folder, in which a test may install what it likes.
#
# clean_root NAME needs root and debootstrap, and ends the test with `not run: NAME: WHY` without them. It leaves the root's path
# in $root and mounts /proc and so on in it; at the end of the test everything is unmounted and removed.
# ROOT=FOLDER: copy this root, which debootstrap made, and do not make one. SUITE: the release of Debian.
# within COMMAND: run a shell command in the root, with nothing of this shell's environment.

clean_root() {
    [ "$(id -u)" = 0 ] || { echo "not run: $1: it needs root (debootstrap, chroot)"; exit 0; }
    [ -n "${ROOT:-}" ] || command -v debootstrap >/dev/null || { echo "not run: $1: install debootstrap"; exit 0; }
    root=$(mktemp -d)
    chmod 755 "$root"
    trap 'leave_root' EXIT
    if [ -n "${ROOT:-}" ]; then
        cp -a "$ROOT/." "$root"
    else
        debootstrap --variant=minbase "${SUITE:-bookworm}" "$root" >"$root.log" 2>&1 || { tail -n 5 "$root.log"; exit 1; }
    fi
    enter_root "$root"
}

# enter_root FOLDER: make a root usable: name service, certificates, mounts.
enter_root() {
    cp /etc/resolv.conf "$1/etc/resolv.conf"
    mkdir -p "$1/etc/ssl/certs"
    [ -z "${PIP_CERT:-}" ] || cp "$PIP_CERT" "$1/etc/ssl/test-certificates.crt"
    for folder in proc sys dev dev/pts dev/shm; do
        mountpoint -q "$1/$folder" || mount --bind "/$folder" "$1/$folder"
    done
}

unmount_root() {
    for folder in dev/shm dev/pts dev sys proc; do
        mountpoint -q "$1/$folder" && { umount "$1/$folder" || umount -l "$1/$folder"; }
    done
    return 0
}

leave_root() {
    status=$?
    declare -F before_leaving >/dev/null && before_leaving || true
    for each in "$root" ${more_roots:-}; do
        unmount_root "$each"
        mountpoint -q "$each/proc" || rm -rf --one-file-system "$each"
    done
    rm -f "$root.log"
    exit "$status"
}

certificates() { [ -z "${PIP_CERT:-}" ] || echo "PIP_CERT=/etc/ssl/test-certificates.crt"; }

within() {
    # shellcheck disable=SC2046
    chroot "${in_root:-$root}" env -i HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        $(certificates) sh -c "$1"
}
