#!/bin/bash
# deploy/install.sh in a clean Debian root, where no systemd runs. Run it with `make test-host`. It needs root, debootstrap and a
# network. It shows: --dry-run changes nothing; the service user predicts; a second run changes nothing; a changed checkout is
# an upgrade that takes over from the running stack; a release that cannot serve is not left in force; logrotate's file.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/host/clean_root.sh
clean_root "install.sh"
before_leaving() { [ ! -e "$root/usr/local/bin/tableside" ] || within "tableside stop" >/dev/null 2>&1 || true; }
fail() { echo "install.sh: $1" >&2; [ ! -e "$root/out" ] || tail -n 40 "$root/out" >&2; exit 1; }
began=$SECONDS

mkdir -p "$root/checkout"
git ls-files -z | xargs -0 tar -c | tar -x -C "$root/checkout" # not the environment and the run folder of this checkout
listing() { (cd "$root" && find etc opt usr var/lib -xdev ! -path 'var/lib/tableside/run*' -printf '%p %m %u %g %s %l\n' | LC_ALL=C sort); }
here=(TABLESIDE__SERVER__LISTEN=127.0.0.1:18980 TABLESIDE__SERVER__ADMIN_LISTEN=127.0.0.1:18981)

before=$(listing)
within "sh /checkout/deploy/install.sh --dry-run --examples" >"$root/out" || fail "--dry-run failed"
[ "$before" = "$(listing)" ] || fail "--dry-run changed something"
grep -q "would run: useradd" "$root/out" || fail "--dry-run does not say what it would do"

within "sh /checkout/deploy/install.sh --examples" 2>&1 | tee "$root/out" || fail "it failed"
echo "== installed after $((SECONDS - began)) s"
before=$(listing)
within "sh /checkout/deploy/install.sh --examples" >"$root/out" 2>&1 || fail "the second run failed"
[ "$before" = "$(listing)" ] || { diff <(echo "$before") <(listing); fail "a second run changed something"; }
within "stat -c '%a %U' /var/lib/tableside /etc/tableside/tableside.toml" | tr '\n' ' ' | grep -q '750 tableside 640 root' || fail "modes"
within "su -s /bin/sh tableside -c 'touch /opt/tableside/current/x'" 2>/dev/null && fail "the service user can change the code"

within "cd / && exec env ${here[*]} tableside run" >"$root/run.out" 2>&1 &
ready() { curl -sf -o /dev/null --retry 300 --retry-delay 1 --retry-all-errors http://127.0.0.1:18980/v2/health/ready; }
ready || { cat "$root/run.out"; fail "not ready"; }
echo "== ready after $((SECONDS - began)) s"
predict() { curl -s -m 20 http://127.0.0.1:18980/v1/models/iris:predict -d '{"instances": [[5.1, 3.5, 1.4, 0.2]]}'; }
[ "$(predict)" = '{"predictions":["setosa"]}' ] || fail "prediction: $(predict)"
echo "== the service user predicts: $(predict)"
[ "$(stat -c %U "$root/var/lib/tableside/run/admin.key")" = "$(stat -c %U "$root/var/lib/tableside/models")" ] || fail "owner of the run folder"

old=$(readlink "$root/opt/tableside/current")
sed -i 's/^__version__ = .*/__version__ = "9.9.9"/' "$root/checkout/app/__init__.py"
within "${here[*]} sh /checkout/deploy/install.sh" >"$root/out" 2>&1 || fail "the upgrade failed"
new=$(readlink "$root/opt/tableside/current")
[ "$new" != "$old" ] || fail "the link still points at $old"
moved() { curl -s http://127.0.0.1:18980/v2 | grep -q '"version":"9.9.9"'; }
for _ in $(seq 300); do moved && break; sleep 0.2; done # the old workers answer until the new ones have taken over
moved || fail "the workers did not move: $(curl -s http://127.0.0.1:18980/v2)"
[ "$(predict)" = '{"predictions":["setosa"]}' ] || fail "prediction after the upgrade"
echo "== upgraded after $((SECONDS - began)) s"

sed -i 's/^__version__ = .*/__version__ = "9.9.10"/' "$root/checkout/app/__init__.py"
echo 'raise SystemExit("broken")' >>"$root/checkout/app/serving/registry.py"
if within "${here[*]} sh /checkout/deploy/install.sh" >"$root/out" 2>&1; then fail "a broken release was installed"; fi
[ "$(readlink "$root/opt/tableside/current")" = "$new" ] || fail "a broken release is in force"
[ "$(predict)" = '{"predictions":["setosa"]}' ] || fail "prediction after a refused upgrade"
echo "== a broken release was refused after $((SECONDS - began)) s"

sed -i '$d' "$root/checkout/app/serving/registry.py"
cp -p "$root/etc/tableside/tableside.toml" "$root/settings"
printf '\n[server.unknown]\nto_this_release = 1\n' >>"$root/etc/tableside/tableside.toml"
if within "${here[*]} sh /checkout/deploy/install.sh" >"$root/out" 2>&1; then fail "a release that refuses the settings was installed"; fi
[ "$(readlink "$root/opt/tableside/current")" = "$new" ] || fail "a release that refuses the settings is in force"
[ "$(predict)" = '{"predictions":["setosa"]}' ] || fail "prediction after refused settings"
cp -p "$root/settings" "$root/etc/tableside/tableside.toml"
echo "== a release that refuses the settings was refused after $((SECONDS - began)) s"

within "${here[*]} tableside reload >/dev/null && apt-get install -y -qq logrotate >/dev/null 2>&1 && \
    install -m 0644 /checkout/deploy/logrotate/tableside /etc/logrotate.d/tableside && logrotate -f /etc/logrotate.d/tableside" || fail "logrotate failed"
lines=$(within "${here[*]} tableside audit --limit 100" | wc -l)
ls "$root"/var/lib/tableside/run/log/audit.log.2* >/dev/null || fail "logrotate did not rename the audit log"
[ "$lines" -gt 1 ] || fail "the renamed audit log is not read"

within "${here[*]} tableside stop"
wait
echo "install.sh: dry run, installation, repetition, upgrade, refused upgrades, logrotate: $((SECONDS - began)) s"
