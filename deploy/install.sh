#!/bin/sh
# Install Tableside on this host, from the checkout that has this file: user, folders, release, command, service.
#
# Usage: sh deploy/install.sh [--dry-run] [--examples] [--no-start]
#   --dry-run    print what would be done, and change nothing
#   --examples   put the example models into a repository that is empty
#   --no-start   do not start the service, nor restart the workers of a running one
#
# Needs root, and Debian, Ubuntu or another Linux with Python 3.11 to 3.14 and nginx. It can be repeated: what is as it should
# be stays as it is. From the checkout of another version it is the upgrade: if the new release does not serve what the old
# one serves, the old one stays in force.
#   /opt/tableside/releases/NAME   code and environment, root's     /opt/tableside/current   link to the release in force
#   /etc/tableside/tableside.toml  settings, never overwritten      /var/lib/tableside       models, keys, logs: tableside's
set -eu
project=$(cd "$(dirname "$0")/.." && pwd)
home=/opt/tableside
state=/var/lib/tableside
settings=/etc/tableside/tableside.toml
command=/usr/local/bin/tableside
unit=/etc/systemd/system/tableside.service
code="app blueprints client deploy docs examples requirements src training LICENSE README.md gunicorn.conf.py pyproject.toml supervisord.conf wsgi.py"
PATH="$PATH:/usr/sbin:/sbin"
umask 022

dry="" examples="" start=yes
for word in "$@"; do
    case $word in
    --dry-run) dry=yes ;;
    --examples) examples=yes ;;
    --no-start) start="" ;;
    *)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0" >&2
        exit 2
        ;;
    esac
done
say() { echo "tableside: $1"; }
# run WORD...: run this command, or print it.
run() {
    if [ -n "$dry" ]; then echo "would run: $*"; else "$@"; fi
}
# place MODE OWNER GROUP FROM TO: put a file there, unless it is there already.
place() {
    if [ -e "$5" ] && cmp -s "$4" "$5"; then return 0; fi
    run install -m "$1" -o "$2" -g "$3" "$4" "$5"
    changed="$changed $5"
}
# folder MODE OWNER GROUP PATH
folder() {
    if [ "$(stat -c '%a %U %G' "$4" 2>/dev/null)" = "${1#0} $2 $3" ]; then return 0; fi
    run install -d -m "$1" -o "$2" -g "$3" "$4"
}
changed=""

[ -n "$dry" ] || [ "$(id -u)" = 0 ] || { say "run this as root: sudo sh $0" >&2; exit 1; }

# 1. Programs
if [ -n "$dry" ]; then
    echo "would run: sh deploy/need.sh python3:python3 nginx:nginx-light setpriv:util-linux, and python3-venv if it is missing"
else
    sh "$project/deploy/need.sh" python3:python3 nginx:nginx-light setpriv:util-linux
    "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || sh "$project/deploy/need.sh" none:python3-venv
fi

# 2. User and folders
if ! getent passwd tableside >/dev/null; then
    run useradd --system --user-group --no-create-home --home-dir "$state" --shell /usr/sbin/nologin tableside
fi
folder 0755 root root "$home"
folder 0755 root root "$home/releases"
folder 0750 root tableside "${settings%/*}"
folder 0750 tableside tableside "$state"
folder 0750 tableside tableside "$state/models"
[ -e "$settings" ] || place 0640 root tableside "$project/deploy/tableside.toml" "$settings"

# 3. The release. Its name ends with a checksum of its files, so equal code is installed once.
number=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$project/app/__init__.py")
# shellcheck disable=SC2086 # several words
sum=$(cd "$project" && find $code -type f ! -path '*/__pycache__/*' ! -path '*.egg-info/*' -print0 | LC_ALL=C sort -z |
    xargs -0 sha256sum | sha256sum | cut -c 1-12)
release="$home/releases/$number-$sum"
if [ ! -e "$release/.installed" ]; then
    say "installing $release"
    if [ -n "$dry" ]; then
        echo "would copy the code to $release and run: sh deploy/environment.sh $release"
    else
        rm -rf "$release" # what an interrupted installation has left
        install -d -m 0755 "$release"
        # shellcheck disable=SC2086
        (cd "$project" && tar -c --exclude=__pycache__ --exclude='*.egg-info' $code) |
            tar -x -C "$release" --no-same-owner --mode=u=rwX,go=rX
        chmod -R u=rwX,go=rX "$release"
        sh "$release/deploy/environment.sh" "$release"
        touch "$release/.installed"
    fi
fi
if [ -n "$examples" ] && [ -z "$(ls -A "$state/models" 2>/dev/null)" ]; then
    run cp -R "$project/models/." "$state/models"
    run chown -R tableside:tableside "$state/models"
fi

# 4. Command, service, release in force
place 0755 root root "$project/deploy/tableside.sh" "$command"
folder 0755 root root "${unit%/*}"
place 0644 root root "$project/deploy/systemd/tableside.service" "$unit"
[ ! -d /etc/logrotate.d ] || place 0644 root root "$project/deploy/logrotate/tableside" /etc/logrotate.d/tableside
previous=$(readlink "$home/current" || true)
# activate RELEASE: make the link point at it, in one step.
activate() {
    run ln -sfn "$1" "$home/current.new"
    run mv -T "$home/current.new" "$home/current"
}
[ "$previous" = "$release" ] || activate "$release"

# First supervisord's process is looked for: the command fails if the new release refuses the settings. Without
# supervisord, when it was killed, the workers may still serve.
is_running() {
    pid=$(cat "$state/run/supervisord.pid" 2>/dev/null) &&
        tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q supervisord || "$command" workers >/dev/null 2>&1
}
if [ -z "$dry" ] && [ -n "$start" ] && is_running && [ "$previous" != "$release" ]; then
    say "replacing the workers"
    if ! "$command" restart; then
        [ -z "$previous" ] || activate "$previous"
        say "the new release does not serve what the old one serves, which goes on: $previous" >&2
        exit 1
    fi
fi
if [ -d /run/systemd/system ]; then
    case $changed in *"$unit"*) run systemctl daemon-reload ;; esac
    run systemctl enable --quiet tableside
    if [ -n "$start" ]; then run systemctl start tableside; fi
    case $previous$changed in
    /*"$unit"*) say "the unit has changed: it holds from the next \`systemctl restart tableside\`, which ends the stack for a moment" ;;
    esac
else
    say "no systemd runs here, so nothing is started. In the foreground: tableside run"
fi
say "installed $release. Settings: $settings. Commands: tableside list, tableside workers, tableside logs -f"
