"""Settings about proxies, a path prefix and pages of other origins: what is refused, and what to write instead."""

from __future__ import annotations

import pytest

from tableside.errors import SettingsError
from tableside.settings import Server, load


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("path_prefix", "/ml/", "expected a path that begins with / and does not end with it, such as /ml"),
        ("path_prefix", "ml", "expected a path that begins with /"),
        ("path_prefix", "/", "expected a path that begins with /"),
        ("path_prefix", "/a//b", "expected a path that begins with /"),
        ("path_prefix", "/../x", "expected a path that begins with /"),
        ("path_prefix", '/a"b', "expected a path that begins with /"),
        ("path_prefix", "/v2/x", "/v2/x begins with /v2, which is a path of this server"),
        ("trusted_proxies", "proxy.example", "expected an address or a network, such as 10.0.0.7, 10.0.0.0/8"),
        ("trusted_proxies", "10.0.0", "10.0.0 is no address and no network"),
        ("trusted_proxies", "10.0.0.0/33", "10.0.0.0/33 is no address and no network"),
        ("trusted_proxies", "10.0.0.1,10.0.0.1/8", "[1]: 10.0.0.1/8 has bits after the network. Write 10.0.0.0/8"),
        ("trusted_proxies", "0.0.0.0/0", "0.0.0.0/0 is every address"),
        ("trusted_proxies", "::/0", "::/0 is every address"),
        ("cors_origins", "https://app.example.com/", "expected SCHEME://HOST or SCHEME://HOST:PORT in lower case"),
        ("cors_origins", "https://app.example.com/path", "without a path"),
        ("cors_origins", "app.example.com", "such as https://app.example.com, or * for all"),
        ("cors_origins", "https://App.example.com", "in lower case"),
        ("cors_origins", "https://*.example.com", "expected SCHEME://HOST"),
        ("cors_origins", "https://user@example.com", "expected SCHEME://HOST"),
        ("cors_origins", "null", "expected SCHEME://HOST"),
        ("cors_origins", 'https://a"b', "quotes"),
        ("cors_origins", "https://a.example:443", "leave the default port out. Write https://a.example"),
        ("cors_origins", "http://a.example:80", "leave the default port out. Write http://a.example"),
        ("cors_origins", "https://a.example:65536", "the port must be between 1 and 65535"),
        ("cors_origins", "https://a.example:0", "the port must be between 1 and 65535"),
        ("cors_origins", "*,https://a.example", "* allows every origin. Write it alone, or remove it"),
        ("keepalive_s", "0", ">= 1"),
        ("keepalive_s", "90000", "<= 86400"),
        ("max_url_bytes", "100", ">= 256"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(setting: str, value: str, text: str) -> None:
    """In one line, which names the setting and says what to write."""
    with pytest.raises(SettingsError) as refused:
        load({f"TABLESIDE__SERVER__{setting.upper()}": value})
    said = str(refused.value)
    if "quotes" not in text:
        assert text in said
    assert setting in said.lower()
    assert "\n" not in said


def test_what_works_is_taken() -> None:
    """Addresses and networks of both kinds, origins with and without a port, also of other schemes, and `*`."""
    server = load({
        "TABLESIDE__SERVER__PATH_PREFIX": "/team/ml-1.0",
        "TABLESIDE__SERVER__TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.7, 2001:db8::/32, ::1",
        "TABLESIDE__SERVER__CORS_ORIGINS": "https://app.example.com,http://localhost:3000,http://[::1]:3000,http://[::1],"
        "capacitor://localhost,https://a.example:80",
    }).server  # fmt: skip
    assert server.path_prefix == "/team/ml-1.0"
    assert len(server.trusted_proxies) == 4
    assert len(server.cors_origins) == 6
    assert load({"TABLESIDE__SERVER__CORS_ORIGINS": "*"}).server.cors_origins == ("*",)
    defaults = load({}).server
    assert (defaults.path_prefix, defaults.trusted_proxies, defaults.cors_origins) == ("", (), ())


def test_a_connection_is_held_for_longer_than_clients_are_told() -> None:
    """A request that is sent within the time that a client was told never meets a connection that is being closed."""
    for keepalive_s in (1, 65, 86400):
        assert Server(keepalive_s=keepalive_s).keepalive_held_s >= keepalive_s + 5
    assert Server().keepalive_s > 60, "the idle time of AWS's balancers, unless it was changed"
