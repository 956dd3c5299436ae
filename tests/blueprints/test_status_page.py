"""The status page of the control plane: who sees it, its sessions, its headers, and what it shows."""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from msgspec.structs import replace

from tableside.access_keys import KeysFile, Scope
from tableside.blueprints.admin import page_content, page_cookies, page_views
from tableside.blueprints.admin.page_models import HELP
from tableside.errors import FailureKind
from tableside.process.audit_log import FILE as AUDIT_FILE
from tableside.serving import request_history
from tableside.web import sessions
from tests.conftest import BEARER, CONTROL, KEY, MakeApp

PROJECT = Path(__file__).resolve().parents[2]
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture(autouse=True)
def quickly_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_views, "WRONG_KEY_S", 0.0)


def show(client: FlaskClient, path: str = "/", **headers: str) -> Any:
    return client.get(path, headers={**BROWSER, **headers}, environ_overrides=CONTROL)


def form_token(text: str) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', text)
    assert found, text
    return found[1]


def sign_in(client: FlaskClient, key: str = KEY, token: str | None = None, **headers: str) -> Any:
    token = form_token(show(client).text) if token is None else token
    form = {"key": key, "form_token": token}
    return client.post("/admin/sign-in", data=form, headers={**BROWSER, **headers}, environ_overrides=CONTROL)


@pytest.fixture
def own(make_app: MakeApp, tmp_path: Path) -> Flask:
    """An application with iris, whose keys file is this test's."""
    return make_app(server__keys_file=str(tmp_path / "keys.json"))


@pytest.fixture
def keys(tmp_path: Path) -> KeysFile:
    return KeysFile(tmp_path / "keys.json", tmp_path / "models")


@pytest.fixture
def signed_in(app: Flask) -> FlaskClient:
    """A browser with a session, on the application that all tests share."""
    return begin_session(app)


@pytest.fixture
def own_signed_in(own: Flask) -> FlaskClient:
    """A browser with a session, on this test's application."""
    return begin_session(own)


def begin_session(app: Flask) -> FlaskClient:
    client = app.test_client()
    assert sign_in(client).status_code == 303
    return client


@pytest.mark.parametrize(
    ("accept", "is_page"),
    [
        (BROWSER["Accept"], True),
        ("text/html", True),
        ("application/json;q=0.5, text/html", True),
        ("application/json, text/html", True),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/json, text/html;q=0.5", False),
        ("text/html;q=0.2, */*", False),
        ("text/html;q=0", False),
    ],
)
def test_only_a_browser_on_the_control_plane_gets_the_page(client: FlaskClient, accept: str, is_page: bool) -> None:
    """Probes get what `/` has always answered; on the data plane a browser does too."""
    headers = {"Accept": accept} if accept else {}
    on_control = client.get("/", headers=headers, environ_overrides=CONTROL)
    assert (on_control.status_code, on_control.mimetype) == (200, "text/html" if is_page else "application/json")
    assert "Accept" in on_control.headers["Vary"]
    on_data = client.get("/", headers=headers)
    assert on_data.get_json() == {"status": "alive"}
    assert "Vary" not in on_data.headers


@pytest.mark.parametrize("path", ["/admin", "/admin/", "/admin/static/status.css", "/admin/sign-in", "/admin/sign-out"])
def test_the_data_plane_has_no_page(client: FlaskClient, path: str) -> None:
    """Its routes are unknown there, as those of the admin API are."""
    method = "POST" if "sign" in path else "GET"
    assert client.open(path, method=method, headers=BROWSER).status_code == 404


def test_without_a_session_the_page_names_no_model(app: Flask) -> None:
    """It says whether the server is ready, asks for a key, and links what is open."""
    text = show(app.test_client()).text
    assert "iris" not in text
    assert "READY" not in text
    assert '<input id="key" name="key" type="password"' in text
    for link in ("v2/health/live", "v2/health/ready", "docs", "metrics"):
        assert f'href="{link}"' in text


def test_without_a_key_the_page_says_how_to_make_one(own: Flask, tmp_path: Path, keys: KeysFile) -> None:
    """Nobody can sign in, and the page has no form; a key of another scope changes nothing."""
    (tmp_path / "run" / "admin.key").unlink()
    keys.add("metrics-only", Scope.METRICS, datetime.now(UTC))
    client = own.test_client()
    text = show(client).text
    assert "tableside keys add NAME --scope admin" in text
    assert "<form" not in text
    assert show(client).status_code == 200


def test_a_key_signs_in_and_the_page_shows_models(own_signed_in: FlaskClient) -> None:
    """Models with state and version; the key's name, and not the key."""
    text = show(own_signed_in).text
    assert re.search(r"iris</th>\s*<td[^>]*><span class=\"chip good\">READY</span>", text)
    assert "Signed in with <b>admin.key</b>" in text
    assert "Nothing was changed yet." in text
    assert KEY not in text


def test_a_key_of_the_keys_file_signs_in_until_it_is_revoked(own: Flask, keys: KeysFile) -> None:
    """The session ends with its key."""
    now = datetime.now(UTC)
    client, key = own.test_client(), keys.add("anna", Scope.ADMIN, now)
    own.extensions["tableside"].guard._keyring._looked_at_s = 0.0
    assert sign_in(client, key).status_code == 303
    assert "Signed in with <b>anna</b>" in show(client).text
    keys.revoke("anna")
    own.extensions["tableside"].guard._keyring._looked_at_s = 0.0
    assert "Signed in" not in show(client).text


@pytest.mark.parametrize("scope", [Scope.PREDICT, Scope.METRICS])
def test_keys_of_other_scopes_are_refused(own: Flask, keys: KeysFile, scope: Scope) -> None:
    """403, and the page says which scope it needs."""
    client, key = own.test_client(), keys.add("other", scope, datetime.now(UTC))
    own.extensions["tableside"].guard._keyring._looked_at_s = 0.0
    refused = sign_in(client, key)
    assert refused.status_code == 403
    assert f"This key has the scope {scope}. The page needs one with the scope admin." in refused.text
    assert "Signed in" not in show(client).text


@pytest.mark.parametrize("key", ["", "not-a-key", KEY + "x", "kéy", "x" * 600])
def test_a_wrong_key_is_refused_and_logged_without_it(
    own: Flask, key: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """401, the form again with the reason, no session, and a line in the log."""
    client = own.test_client()
    refused = sign_in(client, key)
    assert refused.status_code == 401
    assert 'role="alert"' in refused.text
    assert "tableside_session" not in "".join(refused.headers.getlist("Set-Cookie"))
    assert not (tmp_path / "run" / sessions.FOLDER).exists()
    logged = capfd.readouterr().out
    assert "sign_in_refused" in logged
    if key:
        assert key not in logged + refused.text


def test_an_expired_key_is_refused(own: Flask, keys: KeysFile) -> None:
    """The page says that it has expired."""
    key = keys.add("old", Scope.ADMIN, datetime.now(UTC) - timedelta(days=2), timedelta(days=1))
    own.extensions["tableside"].guard._keyring._looked_at_s = 0.0
    refused = sign_in(own.test_client(), key)
    assert (refused.status_code, "This key has expired." in refused.text) == (401, True)


def test_many_wrong_keys_keep_no_operator_out(app: Flask, capfd: pytest.CaptureFixture[str]) -> None:
    """While a worker keeps as many of them waiting as it does, the next one is told so, and the right key signs in."""
    for _ in range(page_views.ATTEMPTS):
        page_views._attempts.acquire()
    client = app.test_client()
    refused, begun = sign_in(client, "wrong"), sign_in(client)
    for _ in range(page_views.ATTEMPTS):
        page_views._attempts.release()
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
    assert begun.status_code == 303
    assert "sign_in_refused" not in capfd.readouterr().out, "a flood writes no line but that of the access log"


@pytest.mark.parametrize("key", ["wrong", KEY])
def test_attempts_give_back_their_place(app: Flask, key: str) -> None:
    """However they end."""
    client = app.test_client()
    for _ in range(page_views.ATTEMPTS + 1):
        assert sign_in(client, key, **({"Cookie": ""} if key == "wrong" else {})).status_code in (401, 303, 403)
        client = app.test_client()
    assert all(page_views._attempts.acquire(blocking=False) for _ in range(page_views.ATTEMPTS))
    for _ in range(page_views.ATTEMPTS):
        page_views._attempts.release()


def test_the_cookie_has_no_key_and_its_flags(app: Flask) -> None:
    """HttpOnly, SameSite=Strict, a short life; without TLS not Secure, so that browsers keep it."""
    client = app.test_client()
    made = sign_in(client).headers.getlist("Set-Cookie")
    session = next(each for each in made if each.startswith("tableside_session_"))
    assert KEY not in "".join(made)
    assert {"HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={sessions.LIFE_S}"} <= set(session.split("; "))
    assert "Secure" not in session


def test_under_tls_the_cookies_are_secure(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prefix __Host- keeps other hosts and other paths from setting one of this name."""
    monkeypatch.setattr(page_cookies, "is_secure", lambda of: True)
    client = app.test_client()
    given = show(client).headers.getlist("Set-Cookie") + sign_in(client).headers.getlist("Set-Cookie")
    for each in given:
        assert each.startswith("__Host-tableside_"), each
        assert {"Secure", "Path=/", "HttpOnly", "SameSite=Strict"} <= set(each.split("; ")), each
        assert "Domain" not in each


def test_every_worker_knows_the_session(make_app: MakeApp, own_signed_in: FlaskClient) -> None:
    """One that starts later, too."""
    other = make_app().test_client()
    other.set_cookie(session_cookie(other), cookie_of(own_signed_in))
    assert "Signed in" in show(other).text


def session_cookie(client: FlaskClient) -> str:
    """Its name on the server of this browser."""
    return page_cookies.name(page_cookies.SESSION, client.application.extensions["tableside"].settings)


def cookie_of(client: FlaskClient) -> str:
    found = client.get_cookie(session_cookie(client))
    assert found is not None
    return found.value


@pytest.mark.parametrize("change", ["cut", "other", "long", "path"])
def test_a_changed_cookie_is_no_session(signed_in: FlaskClient, change: str) -> None:
    """Whatever it is changed to; the page asks for a key."""
    token = cookie_of(signed_in)
    changed = {"cut": token[:-1], "other": "x" * len(token), "long": token * 10, "path": "../../admin.key"}[change]
    signed_in.set_cookie(session_cookie(signed_in), changed)
    shown = show(signed_in)
    assert (shown.status_code, "Signed in" in shown.text) == (200, False)


def test_a_session_ends_after_its_life(signed_in: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock of the server, whatever the browser does."""
    began_s = page_views.time.time()
    monkeypatch.setattr(page_views.time, "time", lambda: began_s + sessions.LIFE_S - 60)
    assert "Signed in" in show(signed_in).text
    monkeypatch.setattr(page_views.time, "time", lambda: began_s + sessions.LIFE_S + 60)
    assert "Signed in" not in show(signed_in).text


def test_another_admin_key_ends_the_session(own_signed_in: FlaskClient, tmp_path: Path) -> None:
    """The operator has written another one into admin.key."""
    (tmp_path / "run" / "admin.key").write_text("another-key")
    assert "Signed in" not in show(own_signed_in).text


def test_sign_out_ends_the_session_everywhere(own_signed_in: FlaskClient, own: Flask, tmp_path: Path) -> None:
    """The cookie is removed, and one that somebody has copied is worth nothing."""
    copied = cookie_of(own_signed_in)
    form = {"form_token": form_token(show(own_signed_in).text)}
    done = own_signed_in.post("/admin/sign-out", data=form, headers=BROWSER, environ_overrides=CONTROL)
    assert (done.status_code, done.headers["Location"]) == (303, "../")
    assert own_signed_in.get_cookie(session_cookie(own_signed_in)) is None
    assert list((tmp_path / "run" / sessions.FOLDER).iterdir()) == []
    other = own.test_client()
    other.set_cookie(session_cookie(other), copied)
    assert "Signed in" not in show(other).text
    events = [json.loads(line)["event"] for line in (tmp_path / "run" / AUDIT_FILE).read_text().splitlines()]
    assert events == ["sign_in", "sign_in", "sign_out", "sign_out"]


def sign_out(client: FlaskClient, token: str) -> Any:
    form = {"form_token": token}
    return client.post("/admin/sign-out", data=form, headers=BROWSER, environ_overrides=CONTROL)


def test_sign_out_ends_a_session_whose_key_does_not_count(
    own: Flask, own_signed_in: FlaskClient, tmp_path: Path
) -> None:
    """The key counts again when the file is back; the session does not."""
    copied, token = cookie_of(own_signed_in), form_token(show(own_signed_in).text)
    (tmp_path / "run" / "admin.key").rename(tmp_path / "aside")
    assert sign_out(own_signed_in, token).status_code == 303
    (tmp_path / "aside").rename(tmp_path / "run" / "admin.key")
    other = own.test_client()
    other.set_cookie(session_cookie(other), copied)
    assert "Signed in" not in show(other).text


def test_a_session_that_cannot_be_removed_is_told(own_signed_in: FlaskClient, tmp_path: Path) -> None:
    """The cookie is removed all the same, and the page says that the session lives on."""
    token = form_token(show(own_signed_in).text)
    (file,) = (tmp_path / "run" / sessions.FOLDER).iterdir()
    file.unlink()
    file.mkdir()  # unlink(2) refuses it, for root too
    answer = sign_out(own_signed_in, token)
    assert (answer.status_code, answer.mimetype) == (500, "text/html")
    assert "could not remove the session" in answer.text
    assert own_signed_in.get_cookie(session_cookie(own_signed_in)) is None


def test_signing_out_needs_no_space(own_signed_in: FlaskClient, own: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk keeps the line from the audit log, and nobody signed in."""
    token = form_token(show(own_signed_in).text)

    def full(line: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(own.extensions["tableside"].audit_log, "begin", full)
    assert sign_out(own_signed_in, token).status_code == 303
    assert own_signed_in.get_cookie(session_cookie(own_signed_in)) is None


def test_signing_in_again_ends_the_earlier_session(own: Flask, own_signed_in: FlaskClient) -> None:
    """A form that was left open in another tab: the browser loses the earlier cookie, so nobody could end it."""
    copied = cookie_of(own_signed_in)
    token = form_token(sign_in(own_signed_in, token="").text)
    assert sign_in(own_signed_in, token=token).status_code == 303
    assert cookie_of(own_signed_in) != copied
    assert "Signed in" in show(own_signed_in).text
    other = own.test_client()
    other.set_cookie(session_cookie(other), copied)
    assert "Signed in" not in show(other).text


@pytest.mark.parametrize("token", ["", "0" * 64, "é"])
def test_forms_need_the_token_of_their_cookie(app: Flask, signed_in: FlaskClient, token: str) -> None:
    """403 for both forms without it; the session lives on."""
    assert sign_in(app.test_client(), token=token).status_code == 403
    refused = signed_in.post("/admin/sign-out", data={"form_token": token}, headers=BROWSER, environ_overrides=CONTROL)
    assert refused.status_code == 403
    assert "Signed in" in show(signed_in).text


def test_the_token_of_another_browser_is_refused(app: Flask) -> None:
    """Each browser has its app."""
    token = form_token(show(app.test_client()).text)
    assert sign_in(app.test_client(), token=token).status_code == 403
    other = app.test_client()
    show(other)
    assert sign_in(other, token=token).status_code == 403


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_pages_of_other_sites_cannot_sign_in_or_out(app: Flask, headers: dict[str, str]) -> None:
    """The guard refuses their forms before the page sees them."""
    client = app.test_client()
    assert sign_in(client, **headers).status_code == 403
    assert sign_in(client).status_code == 303
    form = {"form_token": form_token(show(client).text)}
    refused = client.post("/admin/sign-out", data=form, headers={**BROWSER, **headers}, environ_overrides=CONTROL)
    assert refused.status_code == 403
    assert "Signed in" in show(client).text


def test_the_session_opens_no_api(signed_in: FlaskClient) -> None:
    """The cookie is good for the page only: nothing that a page of another site could cause changes anything."""
    for method, path in (("GET", "/admin/api/models"), ("POST", "/admin/api/reload"), ("POST", "/v2/repository/index")):
        assert signed_in.open(path, method=method, environ_overrides=CONTROL).status_code == 401


def test_a_key_in_the_header_is_not_a_session(app: Flask) -> None:
    """The page is for browsers; programs have the API."""
    assert "Signed in" not in show(app.test_client(), **BEARER).text


@pytest.mark.parametrize("is_signed_in", [True, False])
def test_headers_of_the_page(app: Flask, is_signed_in: bool) -> None:
    """Nothing is stored, framed, or loaded from elsewhere; no script runs."""
    client = app.test_client()
    if is_signed_in:
        sign_in(client)
    headers = show(client).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy == {
        "default-src": "'none'", "style-src": "'self'", "img-src": "'self'", "form-action": "'self'",
        "base-uri": "'none'", "frame-ancestors": "'none'",
    }  # fmt: skip
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert {"Accept", "Cookie"} <= {each.strip() for each in headers["Vary"].split(",")}
    text = show(client).text
    assert "<script" not in text
    assert "style=" not in text
    assert not re.search(r'(?:src|href|action)="(?:https?:)?//', text)


def test_the_page_below_a_prefix(make_app: MakeApp) -> None:
    """Links and forms have the prefix that is known; without one they are relative, so that any prefix works."""
    client = make_app(server__path_prefix="/ml").test_client()
    text = show(client, "/ml").text
    assert 'href="/ml/admin/static/status.css"' in text
    assert 'action="/ml/admin/sign-in"' in text
    form = {"key": KEY, "form_token": form_token(text)}
    done = client.post("/ml/admin/sign-in", data=form, headers=BROWSER, environ_overrides=CONTROL)
    assert (done.status_code, done.headers["Location"]) == (303, "/ml/")
    assert "Signed in" in show(client, "/ml/").text
    assert show(client, "/ml/admin/").headers["Location"] == "/ml/"
    assert "Signed in" in show(client, "/ml").text
    assert all("Path=/ml" in each.split("; ") for each in done.headers.getlist("Set-Cookie"))
    form = {"form_token": form_token(show(client, "/ml/").text)}
    client.post("/ml/admin/sign-out", data=form, headers=BROWSER, environ_overrides=CONTROL)
    assert client.get_cookie(session_cookie(client), path="/ml") is None


def test_servers_under_one_host_name_keep_their_cookies_apart(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tunnels to port 8081 of two machines, or one proxy before both: signing in to one must not end the other's."""
    settings = make_app().extensions["tableside"].settings
    one = page_cookies.name(page_cookies.SESSION, settings)
    assert one == page_cookies.name(page_cookies.SESSION, settings), "every worker knows the name"
    moved = replace(settings, server=replace(settings.server, run_dir=str(tmp_path / "other")))
    monkeypatch.setattr(page_cookies.socket, "gethostname", lambda: "another-machine")
    names = {one, page_cookies.name(page_cookies.SESSION, settings), page_cookies.name(page_cookies.SESSION, moved)}
    assert len(names) == 3


@pytest.mark.parametrize(("path", "place"), [("/admin", "./"), ("/admin/", "../")])
def test_admin_leads_to_the_page(client: FlaskClient, path: str, place: str) -> None:
    """Whoever types /admin finds it."""
    moved = show(client, path)
    assert (moved.status_code, moved.headers["Location"]) == (302, place)


def test_a_refused_form_finds_its_style_sheet(app: Flask) -> None:
    """Its URL is one folder deeper."""
    assert 'href="../admin/static/status.css"' in sign_in(app.test_client(), "wrong").text


def test_a_large_form_is_refused(app: Flask, signed_in: FlaskClient) -> None:
    """413, before anything of it is looked at: the form again, with its own limit."""
    for refused in (sign_in(app.test_client(), "x" * 10_000), sign_out(signed_in, "x" * 10_000)):
        assert (refused.status_code, refused.mimetype) == (413, "text/html")
        assert "larger than 4096 bytes" in refused.text
        assert "max_body_bytes" not in refused.text
    assert "Signed in" in show(signed_in).text


def test_a_full_disk_says_so(own: Flask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """507, with the form again; the page of those who are signed in needs no space."""
    (tmp_path / "run" / sessions.FOLDER).write_text("in the way")
    refused = sign_in(own.test_client())
    assert (refused.status_code, "is full or cannot be written" in refused.text) == (507, True)


def test_sessions_are_bounded(tmp_path: Path) -> None:
    """The earliest one ends when there are too many, and those that have ended are removed."""
    tokens = [sessions.begin(tmp_path, "k", "h", page_views.time.time()) for _ in range(sessions.MOST + 5)]
    now_s = page_views.time.time()
    found = [sessions.find(tmp_path, token, now_s) for token in tokens]
    assert found[-sessions.MOST // 2 :].count(None) == 0
    assert len(list((tmp_path / sessions.FOLDER).iterdir())) == sessions.MOST
    folder = tmp_path / sessions.FOLDER
    old, young = folder / "a.json.4711.new", folder / "b.json.4712.new"
    for draft, began_s in ((old, now_s - 3600), (young, now_s)):
        draft.touch()
        os.utime(draft, (began_s, began_s))
    sessions.begin(tmp_path, "k", "h", now_s)
    assert (old.exists(), young.exists()) == (False, True), (
        "a worker that was killed left the first, one writes the other"
    )
    later_s = now_s + sessions.LIFE_S + 60
    sessions.begin(tmp_path, "k", "h", later_s)
    assert len(list((tmp_path / sessions.FOLDER).iterdir())) == 1


def test_names_and_reasons_are_escaped(own: Flask, own_signed_in: FlaskClient, tmp_path: Path) -> None:
    """A reason that quotes a column with HTML in its name, a search for it, and a line of the audit log."""
    evil = "<script>alert(1)</script>"
    registry = own.extensions["tableside"].registry
    registry.catalog.models["iris"].servables[0].report_problem(f"column '{evil}' is missing", FailureKind.OTHER)
    line = {"time": "2026-11-27T00:00:00", "event": evil, "model": evil, "key": evil, "state": "done", "after": evil}
    with (tmp_path / "run" / AUDIT_FILE).open("a") as file:
        file.write(json.dumps(line) + "\n")
    text = show(own_signed_in).text
    assert evil not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5
    assert evil not in show(own_signed_in, f"/?q={evil}&page={evil}&refresh={evil}&show={evil}").text


def test_a_name_that_is_no_utf8_is_shown(own: Flask, own_signed_in: FlaskClient, tmp_path: Path) -> None:
    """`tableside keys revoke $'ann\\xe9'` writes such a line of the audit log; a line that is no object is left out."""
    line = {"event": "keys revoke", "name": "ann\udce9", "who": "ops", "state": "begun"}
    with (tmp_path / "run" / AUDIT_FILE).open("a") as file:
        file.write(f"[]\n{json.dumps(line)}\n")
    answer = show(own_signed_in)
    assert (answer.status_code, "ann?" in answer.text) == (200, True)
    listed = own.test_client().get("/admin/api/audit", headers=BEARER, environ_overrides=CONTROL)
    assert listed.json["lines"][-1]["name"] == "ann?"


def test_text_that_is_no_utf8_does_not_end_the_page(app: Flask) -> None:
    """Whatever it comes from."""
    with app.test_request_context("/", environ_overrides=CONTROL):
        content = page_views._html("admin/sign_in.html", problem="\udce9", form_token="", not_ready=[], is_open=True)
    assert content.status_code == 200
    assert "?" in content.get_data(as_text=True)


def test_a_problem_is_shown_with_its_reason_and_help(make_app: MakeApp, small_repository: Path) -> None:
    """In words, and the filter finds it."""
    (small_repository / "iris" / "2").mkdir()
    (small_repository / "iris" / "2" / "contract.json").write_bytes(b"{}")
    client = make_app().test_client()
    sign_in(client)
    for path in ("/", "/?show=problems"):
        text = show(client, path).text
        assert "1 model has a problem." in text
        assert "Problem, version 2:" in text
        assert "contract.json" in text
        assert "See <code>docs/" in text
    assert "UNAVAILABLE" in text


def test_what_an_operator_has_turned_off_is_no_problem(make_app: MakeApp, small_repository: Path) -> None:
    """It has a note with the reason; `list`, `top` and the start call it no problem either."""
    (small_repository / "iris" / "model.toml").write_text("enabled = false\n")
    client = make_app().test_client()
    sign_in(client)
    text = show(client).text
    assert "Note, version 1:</b> unloaded: enabled is false in model.toml." in text
    assert "a problem" not in text
    assert "Problem" not in text


def test_every_class_of_problem_has_a_page_that_exists() -> None:
    """The documentation that the page names is there."""
    assert HELP.keys() == set(FailureKind) - {FailureKind.NONE}
    for page, _, anchor in (each.partition("#") for each in HELP.values()):
        text = (PROJECT / page).read_text()
        headings = {line.lstrip("# ").lower().replace(" ", "-") for line in text.splitlines() if line.startswith("#")}
        assert anchor in headings | {""}, page


def test_an_empty_repository_says_what_to_do(make_app: MakeApp) -> None:
    """The next command, and its guide."""
    client = make_app(empty=True).test_client()
    sign_in(client)
    text = show(client).text
    assert "The repository has no models yet." in text
    assert "tableside publish NAME" in text


def test_many_models_have_pages_and_a_filter(
    own: Flask, own_signed_in: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page has so many models; a number beyond the last one is the last one; the links keep the filter."""
    monkeypatch.setattr(page_content, "MODELS_ON_PAGE", 3)
    registry = own.extensions["tableside"].registry
    catalog = registry.catalog
    iris = catalog.models["iris"]
    models = {f"m{number}": sys.modules["dataclasses"].replace(iris, name=f"m{number}") for number in range(8)}
    registry.catalog = sys.modules["dataclasses"].replace(catalog, models=models)

    def named(path: str) -> list[str]:
        return re.findall(r'class="name">(m\d)</th>', show(own_signed_in, path).text)

    assert named("/") == ["m0", "m1", "m2"]
    assert named("/?page=3") == named("/?page=99") == ["m6", "m7"]
    assert named("/?page=0") == named("/?page=-1") == named("/?page=x") == ["m0", "m1", "m2"]
    assert named("/?q=M7") == ["m7"]
    assert named("/?q=nobody") == []
    assert 'href="?q=m&amp;page=2&amp;refresh=10#models"' in show(own_signed_in, "/?q=m&refresh=10").text


@pytest.mark.parametrize(("query", "header"), [("", None), ("?refresh=10", "10"), ("?refresh=60", "60"),
                                               ("?refresh=1", None), ("?refresh=0", None)])  # fmt: skip
def test_the_page_loads_itself_again_only_if_asked(signed_in: FlaskClient, query: str, header: str | None) -> None:
    """By a header of HTTP: readers who need more time choose none."""
    shown = show(signed_in, f"/{query}")
    assert shown.headers.get("Refresh") == header
    assert "http-equiv" not in shown.text


def test_what_was_served_is_plotted(own: Flask, own_signed_in: FlaskClient, tmp_path: Path) -> None:
    """Requests of the last minutes, by all workers, with a text for those who do not see the plot."""
    metrics = own.extensions["tableside"].request_metrics
    metrics.take_activity()
    for _ in range(30):
        own_signed_in.post("/v1/models/iris:predict", json={"instances": [[5.1, 3.5, 1.4, 0.2]]})
    recorder = request_history.Recorder(tmp_path / "run", 0, metrics.take_activity)
    recorder.sample(page_views.time.time() - request_history.SAMPLE_S)
    text = show(own_signed_in).text
    assert '<title id="plot-1-title">Requests per second of iris</title>' in text
    assert "The last 15 minutes: at most 3.0 per second, now 3.0." in text
    assert re.search(r'data-label="Errors" class="figure">0 %', text)
