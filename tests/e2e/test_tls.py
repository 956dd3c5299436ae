"""TLS with a real chain: HTTP/2, keys, and a renewal of the certificate during a stream of requests."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.certificates import Authority, Pair
from tests.e2e.browser import WAIT_MS, Window, run_operation
from tests.e2e.conftest import Stack, until

pytestmark = pytest.mark.e2e
PREDICT, BODY = "/v1/models/iris:predict", b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("live")
    return Pair(folder / "fullchain.pem", folder / "privkey.pem")


def renew(live: Pair, certificate: Path, key: Path) -> None:
    """Replace the live files, one after the other."""
    for source, target in ((certificate, live.certificate), (key, live.key)):
        draft = target.with_suffix(".new")
        shutil.copy(source, draft)
        draft.replace(target)


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack], authority: Authority, live: Pair) -> Iterator[Stack]:
    first = authority.pair("first")
    renew(live, first.certificate, first.key)
    made = make_stack(
        start=False,
        TABLESIDE__SERVER__TLS_CERTIFICATE=str(live.certificate), TABLESIDE__SERVER__TLS_KEY=str(live.key),
        TABLESIDE__SERVER__REQUIRE_KEYS="true", TABLESIDE__SERVER__HSTS_MAX_AGE_S="3600",
    )  # fmt: skip
    made.environ["TABLESIDE__SERVER__KEYS_FILE"] = str(made.folder / "keys.json")
    made.tls = ssl.create_default_context(cafile=str(authority.root))
    made.start()
    made.wait_loaded()
    yield made
    made.stop()


def new_key(stack: Stack, name: str, scope: str) -> dict[str, str]:
    done = stack.cli("keys", "add", name, "--scope", scope)
    assert done.returncode == 0, done.stderr
    return {"Authorization": f"Bearer {done.stdout.strip()}"}


def common_name(stack: Stack) -> str:
    """The name in the certificate that nginx shows, after the whole chain was checked."""
    assert stack.tls is not None
    with (
        socket.create_connection(("127.0.0.1", stack.data), timeout=30) as plain,
        stack.tls.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        found = connection.getpeercert()
    assert found is not None
    return next(value for part in found["subject"] for name, value in part if name == "commonName")  # type: ignore[misc]


def test_both_ports_speak_tls_only(stack: Stack) -> None:
    """The chain is complete for a client that trusts the root, old versions are refused, and plain HTTP is told so."""
    status, content, headers = stack.call("/v2/health/live")
    assert (status, content, headers["Strict-Transport-Security"]) == (200, {"live": True}, "max-age=3600")
    assert stack.call("/v2/health/live", admin=True)[0] == 200
    connection = http.client.HTTPConnection("127.0.0.1", stack.data, timeout=30)
    connection.request("GET", "/v2")
    answer = connection.getresponse()
    assert (answer.status, "use https" in json.load(answer)["error"]) == (400, True)
    connection.close()
    for version, works in (("--tlsv1.2", True), ("--tlsv1.3", True), ("--tls-max=1.1", False)):
        words = ["--tls-max", "1.1"] if not works else [version]
        assert (curl(stack, *words).returncode == 0) is works, version


def curl(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "CURL_CA_BUNDLE": str(stack.folder / "root.pem")}
    url = f"https://127.0.0.1:{stack.data}/v2/health/live"
    return subprocess.run(["curl", "-sS", *words, url], env=environ, capture_output=True, text=True, timeout=60)


@pytest.fixture(autouse=True)
def root(stack: Stack, authority: Authority) -> None:
    shutil.copy(authority.root, stack.folder / "root.pem")


def test_http_2_is_spoken(stack: Stack) -> None:
    """A client that offers HTTP/2 gets it."""
    done = curl(stack, "--http2", "-o", "/dev/null", "-w", "%{http_version} %{http_code}")
    assert done.stdout == "2 200", done.stderr


def test_keys_work_within_a_second_and_commands_know_tls(stack: Stack) -> None:
    """A new key opens its routes in every worker; revoked, none. `tableside reload` trusts the stack's certificate."""
    assert stack.call(PREDICT, BODY)[0] == 401
    assert stack.call("/metrics", admin=True)[0] == 401
    caller, metrics = new_key(stack, "caller", "predict"), new_key(stack, "prometheus", "metrics")
    assert until(lambda: all(stack.call(PREDICT, BODY, headers=caller)[0] == 200 for _ in range(20)), 60)
    assert until(lambda: stack.call("/metrics", admin=True, headers=metrics)[0] == 200, 60)
    assert stack.call("/metrics", admin=True, headers=caller)[0] == 403
    scraped = stack.call("/metrics", admin=True, headers=metrics)[1]
    expires_s = float(scraped.partition("\ntableside_certificate_expiry_timestamp_seconds ")[2].split()[0])
    assert expires_s > time.time()
    assert stack.cli("reload").returncode == 0
    assert stack.cli("keys", "revoke", "caller").returncode == 0
    assert until(lambda: all(stack.call(PREDICT, BODY, headers=caller)[0] == 401 for _ in range(20)), 60)
    secret = caller["Authorization"].partition(" ")[2]
    assert secret not in stack.logs()


def test_a_browser_asks_for_the_key_and_forgets_it(stack: Stack, window: Window) -> None:
    """`/docs` opens without a key, shows models with one, and sends it with what is tried out; it is stored nowhere."""
    bearer = new_key(stack, "browser", "predict")
    key = bearer["Authorization"].partition(" ")[2]
    assert until(lambda: all(stack.call(PREDICT, BODY, headers=bearer)[0] == 200 for _ in range(20)), 60)
    page, form = window.page, window.page.locator("#ask")
    page.goto(f"https://127.0.0.1:{stack.data}/docs")
    for given, answer in (("wrong", "key is wrong"), (key, "")):
        expect(form).to_be_visible(timeout=WAIT_MS)
        page.locator("#key").fill(given)
        page.get_by_role("button", name="Show the models").click()
        if answer:
            expect(page.locator("#said")).to_contain_text(answer, timeout=WAIT_MS)
    expect(page.locator("[id$='-predict_iris']")).to_be_visible(timeout=WAIT_MS)
    expect(form).to_be_hidden()
    status, shown = run_operation(page, "predict_iris")
    assert status.strip().startswith("200"), shown
    assert [url for url in window.asked if key in url] == []
    assert page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])") == '[{},{},""]'
    assert [line for line in window.said if "status of 401" not in line] == []
    page.reload()
    expect(form).to_be_visible(timeout=WAIT_MS)
    assert page.locator("[id$='-predict_iris']").count() == 0


def test_a_renewal_loses_no_request(stack: Stack, authority: Authority, live: Pair) -> None:
    """New files are taken up by themselves. A pair that does not fit is reported, and the old one serves on."""
    outcomes: list[int | str] = []
    done = threading.Event()

    def stream() -> None:
        while not done.is_set():
            try:
                outcomes.append(stack.call("/v2/health/live")[0])
            except OSError as problem:
                outcomes.append(repr(problem))

    thread = threading.Thread(target=stream)
    thread.start()
    try:
        assert common_name(stack) == "first"
        second, third = authority.pair("second"), authority.pair("third")
        renew(live, second.certificate, second.key)
        assert until(lambda: common_name(stack) == "second", 60), stack.logs()
        renew(live, third.certificate, second.key)
        log = stack.run_dir / "log" / "nginx.log"
        assert until(lambda: "nginx keeps its certificate: server.tls_key" in log.read_text(), 60), log.read_text()
        assert common_name(stack) == "second"
        seen = len(outcomes)
        assert until(lambda: len(outcomes) > seen + 5, 60)
        renew(live, third.certificate, third.key)
        assert until(lambda: common_name(stack) == "third", 60), stack.logs()
    finally:
        done.set()
        thread.join(60)
    assert set(outcomes) == {200}
