"""The certificate that nginx uses, and when a stack may listen beyond loopback."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tableside import settings as app_settings
from tableside.access_keys import KeysFile, Scope
from tableside.deployment import banner, exposure, layout, nginx, own_connection, tls
from tableside.errors import SettingsError, StackError
from tableside.settings import Settings
from tests.certificates import Authority, Pair
from tests.fakes import sum_contract

pytestmark = pytest.mark.no_greenlets
Load = Callable[..., Settings]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def good(authority: Authority) -> Pair:
    return authority.pair("good")


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Settings with `server` keys by keyword."""
    (tmp_path / "run").mkdir()

    def make(**server: object) -> Settings:
        environ = {"run_dir": tmp_path / "run", "keys_file": tmp_path / "keys.json", **server}
        return app_settings.load({f"TABLESIDE__SERVER__{key.upper()}": str(value) for key, value in environ.items()})

    return make


def with_tls(load: Load, pair: Pair, **more: object) -> Settings:
    return load(tls_certificate=pair.certificate, tls_key=pair.key, **more)


def test_the_pair_is_copied_into_one_private_file(load: Load, good: Pair, tmp_path: Path) -> None:
    """Certificate, intermediates and key, for nginx alone; it changes only when it is installed again."""
    tls.install(with_tls(load, good))
    copy = tmp_path / "run" / tls.PEM
    assert copy.read_bytes() == good.certificate.read_bytes() + b"\n" + good.key.read_bytes()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "run").iterdir()] == [tls.PEM]


def test_without_tls_nothing_is_installed(load: Load, tmp_path: Path) -> None:
    """No file, and nothing to watch."""
    tls.install(load())
    assert list((tmp_path / "run").iterdir()) == []
    assert tls.stamp(load()) == ()


def test_a_pair_that_does_not_fit_keeps_the_one_of_before(
    load: Load, good: Pair, authority: Authority, tmp_path: Path
) -> None:
    """Another key, a file that is missing, is no PEM, or has a passphrase: each is named, and nothing is replaced."""
    other = authority.pair("other")
    text, locked = tmp_path / "text", tmp_path / "locked.key"
    text.write_text("no certificate")
    command = ["openssl", "ec", "-aes256", "-passout", "pass:x", "-in", str(good.key), "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    tls.install(with_tls(load, good))
    before = (tmp_path / "run" / tls.PEM).read_bytes()
    for pair, problem in (
        (Pair(good.certificate, other.key), r"server.tls_key \(.*other.key\) does not belong to the first certificate"),
        (Pair(good.certificate, tmp_path / "none"), r"server.tls_key: cannot read .*none: No such file"),
        (Pair(tmp_path, good.key), r"server.tls_certificate: cannot read .*: Is a directory"),
        (Pair(text, good.key), "no certificate and key in PEM"),
        (Pair(good.certificate, text), "no certificate and key in PEM"),
        (Pair(good.certificate, locked), "has a passphrase"),
    ):
        with pytest.raises(StackError, match=problem):
            tls.install(with_tls(load, pair))
        assert (tmp_path / "run" / tls.PEM).read_bytes() == before
    assert [path.name for path in (tmp_path / "run").iterdir()] == [tls.PEM]


def test_a_renewal_changes_the_stamp(load: Load, good: Pair, authority: Authority, tmp_path: Path) -> None:
    """Files that are replaced, and links that lead elsewhere, as certbot renews them."""
    link, key = tmp_path / "live.pem", tmp_path / "live.key"
    link.symlink_to(good.certificate)
    shutil.copy(good.key, key)
    settings = with_tls(load, Pair(link, key))
    stamps = [tls.stamp(settings)]
    other = authority.pair("renewed")
    link.unlink()
    link.symlink_to(other.certificate)
    stamps.append(tls.stamp(settings))
    key.unlink()
    stamps.append(tls.stamp(settings))
    shutil.copy(other.key, key)
    stamps.append(tls.stamp(settings))
    assert len(set(stamps)) == 4


def test_both_settings_belong_together(load: Load) -> None:
    """A certificate without a key is refused when the settings are read."""
    with pytest.raises(SettingsError, match="belong together"):
        load(tls_certificate="a.pem")


@pytest.mark.parametrize("hsts", ["0", "86400"])
def test_the_real_nginx_accepts_the_configuration(load: Load, good: Pair, hsts: str) -> None:
    """TLS 1.2 and 1.3 and HTTP/2 on both ports; HSTS only if it is set, then on nginx's own errors too."""
    settings = with_tls(load, good, hsts_max_age_s=hsts)
    tls.install(settings)
    program = layout.find_nginx(os.environ)
    assert program
    for plane in nginx.CONF:
        text = nginx.write(settings, program, plane).read_text()
        assert len(re.findall(r"listen 127.0.0.1:\d+ ssl http2 backlog", text)) == 1
        assert "ssl_protocols TLSv1.2 TLSv1.3;" in text
        assert text.count('Strict-Transport-Security "max-age=86400" always;') == (17 if hsts != "0" else 0)
        assert "Strict-Transport-Security" not in text.replace('Strict-Transport-Security "max-age=86400" always;', "")


PROBES = {path: f"http://control{path}" for path in ("/v2/health/live", "/v2/health/ready", "/ping", "/health")}
PROXIED = {
    "data": {"/": "http://web", **PROBES},
    "admin": {"/": "http://control", "^~ /admin/": "http://control", "^~ /v2/repository/": "http://control", **PROBES},
}  # fmt: skip
"""Every location of nginx that answers clients, and where it passes requests: to the guard of the application."""


def test_every_location_of_nginx_leads_to_the_guard(load: Load) -> None:
    """nginx answers nothing itself but errors: a location passes the request on, is internal, or on a unix socket."""
    for plane, expected in PROXIED.items():
        text = nginx.render(load(), plane)
        *status, server = re.split(r"^    server \{$", text, flags=re.MULTILINE)[1:]
        assert text.count("stub_status") == len(status) == (plane == "data")
        assert [re.findall(r"listen (\S+);", each) for each in status] == [["unix:tmp/nginx-check.sock"]] * len(status)
        found = {}
        for name, block in re.findall(r"^        location (.+?) \{(.*?)\}$", server, re.MULTILINE | re.DOTALL):
            if name.startswith("@") or "internal;" in block:
                assert block.strip().startswith("internal;"), name
                continue
            passed_to = set(re.findall(r"proxy_pass (\S+);", block))  # the location of uploads is inside of another
            (found[name.removeprefix("= ")],) = passed_to
        assert found == expected


@pytest.mark.parametrize(
    ("server", "lacks"),
    [
        ({"listen": "0.0.0.0:8080"}, "server.listen: .* lacks TLS .* and a key for callers"),
        ({"listen": "[::]:8080", "admin_listen": "192.0.2.1:8081"}, "server.listen and server.admin_listen: .*"),
        ({"admin_listen": "box:8081"}, r"server.admin_listen: .* lacks TLS \(set server.tls_certificate and .*\)\. If"),
    ],
)
def test_a_stack_is_open_on_purpose_only(load: Load, server: dict[str, str], lacks: str) -> None:
    """Beyond loopback without keys and TLS, the start is refused with what to set; server.open allows it."""
    with pytest.raises(StackError, match=f"^{lacks}.*set server.open = true"):
        exposure.check(load(**server), behind_nginx=True)
    exposure.check(load(**server, open="true"), behind_nginx=True)
    assert load(**server).needs_keys, "if it runs all the same, predictions need a key"
    assert not load(**server, open="true").needs_keys


def test_loopback_is_not_open(load: Load) -> None:
    """127.0.0.0/8, ::1 and localhost need neither keys nor TLS."""
    for address in ("127.0.0.1:8080", "127.9.9.9:8080", "[::1]:8080", "localhost:8080"):
        settings = load(listen=address)
        exposure.check(settings, behind_nginx=False)
        assert not settings.needs_keys


def test_keys_and_tls_are_enough(load: Load, good: Pair, tmp_path: Path) -> None:
    """A key that has expired does not count, nor does a keys file that others can read."""
    settings = with_tls(load, good, listen="0.0.0.0:8080")
    file = KeysFile(settings.keys_path, settings.repository_path)
    with pytest.raises(StackError, match=r"lacks a key for callers \(run `tableside keys add NAME --scope predict`\)"):
        exposure.check(settings, behind_nginx=True)
    file.add("old", Scope.PREDICT, datetime.now(UTC) - timedelta(days=2), timedelta(days=1))
    with pytest.raises(StackError, match="lacks a key for callers"):
        exposure.check(settings, behind_nginx=True)
    file.add("new", Scope.PREDICT, datetime.now(UTC))
    exposure.check(settings, behind_nginx=True)
    file.path.chmod(0o644)
    with pytest.raises(StackError, match="chmod 600"):
        exposure.check(settings, behind_nginx=True)
    with pytest.raises(StackError, match="server.tls_certificate needs nginx"):
        exposure.check(with_tls(load, good), behind_nginx=False)


def test_commands_trust_the_stack_s_own_certificate(load: Load, good: Pair, authority: Authority) -> None:
    """They trust what is in server.tls_certificate only, and call loopback where all addresses are bound."""
    plain = own_connection.connect(load(), "0.0.0.0:8080", 5)
    assert (plain.host, plain.port) == ("127.0.0.1", 8080)
    assert own_connection.connect(with_tls(load, good), "[::]:8080", 5).host == "::1"
    with pytest.raises(StackError, match="server.tls_certificate"):
        own_connection.connect(with_tls(load, Pair(good.key, good.key)), "127.0.0.1:8080", 5)
    assert ssl.OPENSSL_VERSION_INFO >= (1, 1)


def test_the_example_command_fits_the_settings(load: Load, good: Pair) -> None:
    """https with TLS, and the key as a variable where one is needed."""
    line = banner.curl_line(sum_contract(), "127.0.0.1:1", with_tls(load, good, require_keys="true"))
    assert line.startswith('curl -s -H "Authorization: Bearer $KEY" https://127.0.0.1:1/v1/models/')
    assert "https://" in banner.text(with_tls(load, good), behind_nginx=True)
