#!/bin/bash
# deploy/systemd/tableside.service: what systemd says of the file, and the unit for real where systemd runs. Run it with
# `make test-host`. The second part needs root and a checkout that the service may read, so not below /root or /home. It shows:
# `systemctl start` returns when the stack serves; after a SIGKILL of supervisord the service is taken over without a failed
# request; `systemctl stop` leaves no process.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v systemd-analyze >/dev/null || { echo "not run: service: systemd is not installed"; exit 0; }
folder=$(mktemp -d)
name=tableside-test-$$
unit=deploy/systemd/tableside.service
finish() {
    if [ -e "/run/systemd/system/$name.service" ]; then
        systemctl stop "$name" || true
        rm -f "/run/systemd/system/$name.service"
        systemctl daemon-reload
        rm -rf "/var/lib/$name"
    fi
    rm -rf "$folder"
}
trap finish EXIT
fail() { echo "service: $1" >&2; journalctl -u "$name" -n 40 --no-pager >&2 2>/dev/null || true; exit 1; }

mkdir -p "$folder/opt/tableside/current/.venv/bin" "$folder/etc/systemd/system"
install -m 755 /bin/true "$folder/opt/tableside/current/.venv/bin/tableside"
cp "$unit" "$folder/etc/systemd/system/"
cp -R --parents /usr/lib/systemd/system "$folder" 2>/dev/null || cp -R --parents /lib/systemd/system "$folder"
said=$(systemd-analyze verify --man=no --root="$folder" /etc/systemd/system/tableside.service 2>&1 | grep tableside || true)
[ -z "$said" ] || fail "$said"
score=$(systemd-analyze security --offline=true --threshold=30 "$unit" 2>/dev/null | tail -n 1) || fail "too exposed: $score"
echo "service: systemd-analyze verify says nothing;${score#*Overall}"

[ -d /run/systemd/system ] || { echo "not run: the unit for real: no systemd runs here"; exit 0; }
[ "$(id -u)" = 0 ] || { echo "not run: the unit for real: it needs root"; exit 0; }
case $PWD/ in /root/* | /home/*) echo "not run: the unit for real: the unit may not read $PWD (ProtectHome)"; exit 0 ;; esac
data=127.0.0.1:18990
sed -e "s#^\(Exec[A-Za-z]*=\)/opt/tableside/current/#\1$PWD/#" -e "s#^StateDirectory=.*#StateDirectory=$name#" \
    -e "s#^WorkingDirectory=.*#WorkingDirectory=/var/lib/$name#" -e "s#^User=.*#DynamicUser=yes#" -e '/^Group=/d' \
    -e "s#^Environment=.*#Environment=TABLESIDE__SERVER__LISTEN=$data TABLESIDE__SERVER__ADMIN_LISTEN=127.0.0.1:18991 \
TABLESIDE__SERVER__RUN_DIR=/var/lib/$name/run TABLESIDE__REPOSITORY__PATH=/var/lib/$name/models#" \
    -e "s#^\[Service\]#[Service]\nExecStartPre=cp -R $PWD/models /var/lib/$name/#" "$unit" >"/run/systemd/system/$name.service"
systemctl daemon-reload
systemctl start "$name" || fail "it does not start"
status() { curl -s -m 20 -o /dev/null -w '%{http_code}' "http://$data/v1/models/iris:predict" -d '{"instances": [[5.1, 3.5, 1.4, 0.2]]}' || true; }
[ "$(status)" = 200 ] || fail "it has started and does not serve"
systemctl show -p StatusText "$name" | grep -q serves || fail "it has no status text"
before=$(systemctl show -p MainPID --value "$name")
kill -KILL "$before"
asked=0
until now=$(systemctl show -p MainPID --value "$name") && [ "$now" != 0 ] && [ "$now" != "$before" ] &&
    [ "$(systemctl show -p ActiveState --value "$name")" = active ]; do
    [ "$(status)" = 200 ] || fail "a request failed while supervisord was replaced"
    asked=$((asked + 1))
    [ "$asked" -lt 3000 ] || fail "systemd did not start it again"
done
systemctl reload "$name" || fail "it does not reload"
[ "$(status)" = 200 ] || fail "it does not serve after a reload"
group=$(systemctl show -p ControlGroup --value "$name")
systemctl stop "$name" || fail "it does not stop"
[ -z "$(cat "/sys/fs/cgroup$group/cgroup.procs" "/sys/fs/cgroup/systemd$group/cgroup.procs" 2>/dev/null)" ] || fail "processes are left"
echo "service: started when ready, taken over after a SIGKILL ($asked requests), reloaded, stopped"
