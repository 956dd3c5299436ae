"""The guard of every route: hosts, cross-site requests, planes and keys."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tableside.access_keys import KeysFile, Scope
from tableside.serving import switching
from tableside.settings import Server
from tableside.web import keyring
from tableside.web.auth import OPEN_ENDPOINTS, Access, access_of
from tableside.web.extensions import EXTENSION_KEY
from tableside.web.guard import MAX_KNOWN_HOSTS
from tableside.web.hosts import AllowedHosts, machine_names
from tests.conftest import BEARER, CONTROL, MakeApp, error_of

NOW = datetime.now(UTC)
ROWS = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
PREDICT = "/v1/models/iris:predict"
DATA = {"tableside.plane": "data"}
FORMS = ("/admin/sign-in", "/admin/sign-out")
"""Where the status page sends its forms: they refuse whoever has not loaded the page."""


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def file(tmp_path: Path) -> KeysFile:
    return KeysFile(tmp_path / "keys.json", tmp_path / "models")


@pytest.fixture
def keys(file: KeysFile) -> dict[Scope, str]:
    """A key of each scope."""
    return {scope: file.add(f"a-{scope}-key", scope, NOW) for scope in Scope}


@pytest.fixture
def locked(make_app: MakeApp, file: KeysFile, keys: dict[Scope, str], monkeypatch: pytest.MonkeyPatch) -> Flask:
    """An application in which every route needs a key. Nothing waits for its workers: there are none."""
    monkeypatch.setattr(sys.modules["tableside.blueprints.admin.views"], "RELOAD_TIMEOUT_S", 0.01)
    monkeypatch.setattr(switching, "MARGIN_S", 0.01)
    short = {"repository__load_timeout_s": "0.01"}
    return make_app(server__require_keys="true", server__keys_file=str(file.path), **short)


def every_request(app: Flask) -> Iterator[tuple[str, str, Access]]:
    """Each rule with each of its methods, as a method, a path and the access that it declares."""
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(\w+:)?name>", "iris", re.sub(r"<(\w+:)?version>", "1", rule.rule))
        path = path.replace("<operation_id>", "0")
        path = re.sub(r"<path:\w+>", "swagger-ui-5.35.0/index.css", path)
        assert "<" not in path
        for method in sorted(rule.methods or ()):
            yield method, path, access_of(rule.endpoint)


def status(client: FlaskClient, method: str, path: str, plane: dict[str, str], headers: dict[str, str]) -> int:
    return int(client.open(path, method=method, environ_overrides=plane, headers=headers).status_code)


def test_every_route_is_open_on_purpose_or_refuses_without_its_key(locked: Flask, keys: dict[Scope, str]) -> None:
    """Each rule and method: no key is 401, a key of another scope 403, its own and the admin's key are let in."""
    client, walked, scopes = locked.test_client(), [], {access.value: access for access in Access}
    client.get("/ping")
    for method, path, access in every_request(locked):
        walked.append((method, path))
        plane = DATA if access is Access.PREDICT else CONTROL
        without = status(client, method, path, plane, {})
        if access in (Access.OPEN, Access.PAGE):
            assert without != 401, (method, path)
            assert without != 403 or path in FORMS, (method, path)
            if access is Access.PAGE:
                assert status(client, method, path, DATA, {}) == 404, (method, path)
            continue
        assert without == 401, (method, path)
        assert status(client, method, path, plane, bearer("tableside_made-up")) == 401, (method, path)
        for scope, key in keys.items():
            got = status(client, method, path, plane, bearer(key))
            if scope in (Scope.ADMIN, access.value):
                assert got not in (401, 403), (method, path, scope, got)
            else:
                assert got == 403, (method, path, scope)
        if access in (scopes["metrics"], scopes["admin"]):
            assert status(client, method, path, DATA, bearer(keys[Scope.ADMIN])) == 404, (method, path)
    assert len(walked) > 60


def test_the_open_routes_are_the_probes_and_the_page(locked: Flask) -> None:
    """The list of open routes is written here once more: to open another one is to change this test."""
    assert {rule.rule for rule in locked.url_map.iter_rules() if rule.endpoint in OPEN_ENDPOINTS} == {
        "/", "/v2/health/live", "/v2/health/ready", "/ping", "/health", "/docs", "/docs/", "/docs/static/<path:name>",
    }  # fmt: skip


def test_the_routes_of_the_status_page(locked: Flask) -> None:
    """They need no key and are on the control plane only; the list is written here once more, as that of open ones."""
    assert {rule.rule for rule in locked.url_map.iter_rules() if access_of(rule.endpoint) is Access.PAGE} == {
        "/admin", "/admin/", "/admin/static/<path:name>", *FORMS,
    }  # fmt: skip


def test_a_rule_without_a_declaration_needs_the_admin_key() -> None:
    """An endpoint that no blueprint has declared is not open by accident."""
    assert access_of("static") is Access.ADMIN
    assert access_of("health.root_of_all") is not Access.OPEN


def test_on_loopback_only_the_admin_routes_need_a_key(client: FlaskClient) -> None:
    """Without server.require_keys, predictions and metrics need none; the single admin key opens the admin routes."""
    assert client.post(PREDICT, json=ROWS).status_code == 200
    assert status(client, "GET", "/metrics", CONTROL, {}) == 200
    assert status(client, "GET", "/admin/api/workers", CONTROL, {}) == 401
    assert status(client, "GET", "/admin/api/workers", CONTROL, BEARER) == 200


def test_the_single_admin_key_is_good_for_all(locked: Flask) -> None:
    """admin.key of the run folder goes on working, for every scope."""
    client = locked.test_client()
    assert status(client, "GET", "/metrics", CONTROL, BEARER) == 200
    assert client.post(PREDICT, json=ROWS, headers=BEARER).status_code == 200


def test_the_fast_dispatch_checks_keys_and_hosts(locked: Flask, keys: dict[Scope, str]) -> None:
    """Predictions, which do not pass Flask's hooks, are refused before the body is read, and say what is missing."""
    client = locked.test_client()
    client.get("/ping")
    good = client.post(PREDICT, json=ROWS, headers=bearer(keys[Scope.PREDICT]))
    assert good.get_json() == {"predictions": ["setosa"]}
    refused = client.post(PREDICT, data=b"{" * 1000)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert "tableside keys add NAME --scope predict" in error_of(refused)["error"]
    wrong = client.post(PREDICT, json=ROWS, headers=bearer(keys[Scope.METRICS]))
    assert error_of(wrong)["error"] == "this key has the scope metrics; this path needs one with the scope predict"
    assert (
        client.post(PREDICT, json=ROWS, headers={"Host": "evil.example", **bearer(keys[Scope.PREDICT])}).status_code
        == 421
    )


def test_the_document_says_which_operations_need_a_key(locked: Flask, keys: dict[Scope, str]) -> None:
    """Only with a key, because it names models: each operation has the scope that the guard asks for, probes none."""
    client, routes = locked.test_client(), locked.url_map.bind("")
    assert client.get("/docs").status_code == 200
    for path in ("/openapi.json", "/v2/models/iris/openapi.json", "/v2/models/iris/versions/1/openapi.json"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers=bearer(keys[Scope.METRICS])).status_code == 403
        found = client.get(path, headers=bearer(keys[Scope.PREDICT])).get_json()
        ((name, scheme),) = found["components"]["securitySchemes"].items()
        assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
        operations = [(path, method, each) for path, item in found["paths"].items() for method, each in item.items()]
        for path, method, operation in operations:
            access = access_of(routes.match(path, method.upper())[0])
            expected = [] if access is Access.OPEN else [{name: [access.value]}]
            assert operation["security"] == expected, (path, method)
        assert {len(each["security"]) for _, _, each in operations} == {0, 1}


def test_where_no_key_is_required_the_document_asks_for_none(client: FlaskClient) -> None:
    """Generated clients would ask for one."""
    found = client.get("/openapi.json").get_json()
    assert "securitySchemes" not in found["components"]
    assert not [each for item in found["paths"].values() for each in item.values() if "security" in each]


def test_the_page_knows_no_model(locked: Flask, client: FlaskClient) -> None:
    """Without a key a browser gets the same page and files as on every other server."""
    for path in ("/docs", "/docs/static/init.js"):
        with locked.test_client().get(path) as without, client.get(path) as other:
            assert without.data == other.data
            assert b"iris" not in without.data


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def test_keys_change_without_a_restart(file: KeysFile) -> None:
    """A new key counts, a revoked one no longer does, a second after the file has changed and not before."""
    clock = Clock()
    ring = keyring.Keyring(file, clock)
    first = file.add("first", Scope.PREDICT, NOW)
    assert ring.find(first) is None
    clock.s += keyring.CHECK_EVERY_S
    found = ring.find(first)
    assert found is not None
    assert (found.name, found.scope) == ("first", Scope.PREDICT)
    second = file.add("second", Scope.ADMIN, NOW)
    file.revoke("first")
    assert ring.find(first) is not None
    clock.s += keyring.CHECK_EVERY_S
    assert ring.find(first) is None
    assert ring.find(second) is not None
    file.path.unlink()
    clock.s += keyring.CHECK_EVERY_S
    assert ring.find(second) is None


def test_the_keys_file_is_looked_at_once_a_second(file: KeysFile) -> None:
    """Whatever the number of requests; and requests during a look are answered from the keys of before.

    A key that is not known may have been made just now, so it makes the file be looked at again, but not each time.
    """
    known = file.add("first", Scope.PREDICT, NOW)
    clock, looks = Clock(), []

    class Watched(KeysFile):
        def stamp(self) -> tuple[int, ...]:
            looks.append(clock.s)
            if clock.s:
                assert ring.find("tableside_x") is None, "a request while the file is looked at does not look again"
            return super().stamp()

    ring = keyring.Keyring(Watched(file.path, file.repository), clock)
    for clock.s in (0.0, 0.5, 1.0, 1.5, 1.9, 2.0, 2.1):
        for _ in range(10):
            assert ring.find(known) is not None
    assert looks == [0.0, 1.0, 2.0]
    for clock.s in (2.11, 2.12, 2.17):
        for _ in range(10):
            assert ring.find("tableside_x") is None
    assert looks == [0.0, 1.0, 2.0, 2.11, 2.17]


def test_an_unusable_keys_file_lets_nobody_in(file: KeysFile, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that others can read, or that is damaged, counts as empty; when it is mended its keys count again."""
    clock = Clock()
    key = file.add("first", Scope.PREDICT, NOW)
    ring = keyring.Keyring(file, clock)
    for spoil in (lambda: file.path.chmod(0o640), lambda: file.path.write_bytes(b"{")):
        good = file.path.read_bytes()
        spoil()
        clock.s += keyring.CHECK_EVERY_S
        assert ring.find(key) is None
        file.path.write_bytes(good)
        file.path.chmod(0o600)
        clock.s += keyring.CHECK_EVERY_S
        assert ring.find(key) is not None
    assert key not in "".join(capsys.readouterr())


def test_an_expired_key_is_refused(make_app: MakeApp, file: KeysFile) -> None:
    """401 says that it has expired: whoever holds the key may know."""
    key = file.add("old", Scope.PREDICT, NOW - timedelta(days=2), timedelta(days=1))
    client = make_app(server__require_keys="true", server__keys_file=str(file.path)).test_client()
    refused = client.post(PREDICT, json=ROWS, headers=bearer(key))
    assert refused.status_code == 401
    assert error_of(refused)["error"].startswith("the predict key has expired.")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.nip.io", "0.0.0.0:8080", "10.0.0.1",
        "[::]", "a b", "localhost:8080@evil.example", "[::1",
    ],
)  # fmt: skip
def test_other_hosts_are_refused_on_every_plane(app: Flask, host: str) -> None:
    """421 with an error object, for probes, metrics, predictions and unknown paths too."""
    client = app.test_client()
    for plane in (DATA, CONTROL):
        for method, path in (("GET", "/v2/health/live"), ("GET", "/metrics"), ("GET", "/nothing"), ("POST", PREDICT),
                             ("OPTIONS", PREDICT)):  # fmt: skip
            refused = client.open(path, method=method, headers={"Host": host}, environ_overrides=plane)
            assert refused.status_code == 421, (method, path)
            assert "server.allowed_hosts" in error_of(refused)["error"]
            assert host not in refused.get_data(as_text=True)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1:8080", "127.8.8.8", "[::1]:80"])
def test_loopback_hosts_are_allowed(client: FlaskClient, host: str) -> None:
    """The names and addresses of this machine for itself, with any port: a tunnel may change it."""
    assert client.get("/v2/health/live", headers={"Host": host}).status_code == 200


def test_the_allowed_hosts_are_those_of_the_settings() -> None:
    """Names, names below a domain, and addresses; `*` allows everything."""
    hosts = AllowedHosts(
        Server(listen="192.0.2.7:80", allowed_hosts=("Models.Example", "*.in.example", "192.0.2.9")), ()
    )
    allowed = ("models.example", "models.example:443", "a.in.example", "b.a.in.example", "192.0.2.7", "192.0.2.9:1", "")
    assert [host for host in allowed if not hosts.allows(host)] == []
    refused = ("in.example", "xin.example", "a.models.example", "192.0.2.8", "evil.example")
    assert [host for host in refused if hosts.allows(host)] == []
    assert AllowedHosts(Server(allowed_hosts=("*",)), ()).allows("evil.example")


def test_on_all_addresses_any_address_in_numbers_is_allowed() -> None:
    """Which address a client calls is the network's matter there; a page of another site has a name."""
    hosts = AllowedHosts(Server(listen="0.0.0.0:8080"), {"box"})
    assert all(map(hosts.allows, ("10.1.2.3:8080", "[2001:db8::1]", "box", "BOX:8080")))
    assert not any(map(hosts.allows, ("evil.example", "0.0.0.0", "box.evil.example")))


def test_the_names_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host name, its first part, and what stands on the same line of /etc/hosts."""
    monkeypatch.setattr("socket.gethostname", lambda: "Box.lan")
    (tmp_path / "hosts").write_text(
        "127.0.0.1 localhost\n# box.no\n127.0.1.1 box.example.com box # mine\n192.0.2.1 other\n"
    )
    assert machine_names(tmp_path / "hosts") == {"box.lan", "box", "box.example.com"}
    assert machine_names(tmp_path / "none") == {"box.lan", "box"}


def test_remembered_hosts_are_bounded(make_app: MakeApp) -> None:
    """A client that writes another port each time does not fill the memory."""
    app = make_app(load=False)
    client = app.test_client()
    for port in range(2 * MAX_KNOWN_HOSTS):
        assert client.get("/v2/health/live", headers={"Host": f"localhost:{port}"}).status_code == 200
    assert len(app.extensions[EXTENSION_KEY].guard._known_hosts) <= MAX_KNOWN_HOSTS


@pytest.mark.parametrize("headers", [
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"},
    {"Origin": "null"}, {"Origin": "http://localhost:3000"}, {"Origin": ""},
    {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
])  # fmt: skip
def test_posts_of_other_sites_do_not_reach_the_control_plane(client: FlaskClient, headers: dict[str, Any]) -> None:
    """403, with the key too. Reading is not refused, because a page of another site cannot see the answer."""
    for path in ("/admin/api/reload", "/v2/repository/index", PREDICT):
        got = client.post(path, headers={**BEARER, **headers}, environ_overrides=CONTROL, json=ROWS)
        assert got.status_code == 403, path
        assert "page of another site" in error_of(got)["error"]
    assert status(client, "GET", "/admin/api/workers", CONTROL, {**BEARER, **headers}) == 200
    assert client.post(PREDICT, headers=headers, json=ROWS).status_code == 200, "the data plane takes them"


@pytest.mark.parametrize("headers", [{"Origin": "http://localhost"}, {"Origin": "HTTP://LOCALHOST:80"},
                                     {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}])  # fmt: skip
def test_posts_of_own_pages_are_answered(client: FlaskClient, headers: dict[str, str]) -> None:
    """The page `/docs` on the control plane can send requests to its own origin."""
    got = client.post(PREDICT, headers=headers, environ_overrides=CONTROL, json=ROWS)
    assert got.status_code == 200
