"""`/docs` in a real browser, against the real stack: it works without any other host."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect

from benchmarks.free_ports import free_port
from tableside.blueprints.docs.views import SWAGGER
from tableside.deployment.layout import find_nginx
from tests.e2e.browser import WAIT_MS, Window, run_operation
from tests.e2e.conftest import Stack, until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def stack(shared_stack: Stack) -> Stack:
    """The stack of several files."""
    return shared_stack


def other_hosts(window: Window, stack: Stack) -> list[str]:
    own = (f"http://127.0.0.1:{stack.data}/", "data:", "blob:")
    return [url for url in window.asked if not url.startswith(own)]


def test_a_prediction_is_tried_out_in_the_page(stack: Stack, window: Window) -> None:
    """The page lists every model's operations; iris, tried out, answers 200; nothing is said, no other host asked."""
    window.page.goto(f"http://127.0.0.1:{stack.data}/docs")
    expect(window.page.locator("[id$='-predict_iris']")).to_be_visible(timeout=WAIT_MS)
    for name in ("breast-cancer", "diabetes", "iris", "wine"):
        for path in (f"/v1/models/{name}:predict", f"/v2/models/{name}/infer"):
            assert window.page.locator(f".opblock-summary-path[data-path='{path}']").count() == 1, path
    status, shown = run_operation(window.page, "predict_iris")
    assert status.strip().startswith("200")
    assert "setosa" in shown
    status, shown = run_operation(window.page, "infer_wine")
    assert status.strip().startswith("200"), shown
    assert "model_name" in shown
    assert window.said == []
    assert other_hosts(window, stack) == []
    assert len(window.asked) >= 6


def test_one_model_s_page(stack: Stack, window: Window) -> None:
    """`/docs?model=iris` shows iris and no other model."""
    window.page.goto(f"http://127.0.0.1:{stack.data}/docs?model=iris")
    expect(window.page.locator("[id$='-predict_iris']")).to_be_visible(timeout=WAIT_MS)
    assert window.page.locator("[id$='-predict_wine']").count() == 0
    assert window.said == []


def test_the_page_works_below_a_path_prefix(stack: Stack, window: Window, tmp_path: Path) -> None:
    """A plain proxy that removes `/ml` and says nothing of it: what is tried out in the page goes below `/ml`."""
    port, nginx = free_port(), find_nginx(os.environ)
    assert nginx
    conf = tmp_path / "proxy.conf"
    conf.write_text(f"""
        daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{ }}
        http {{
            access_log {tmp_path}/access.log; client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy;
            fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;
            server {{ listen 127.0.0.1:{port}; location /ml/ {{ proxy_pass http://127.0.0.1:{stack.data}/; }} }}
        }}""")
    with subprocess.Popen([nginx, "-p", str(tmp_path), "-c", str(conf), "-e", str(tmp_path / "error.log")]) as proxy:
        try:
            assert until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
            window.page.goto(f"http://127.0.0.1:{port}/ml/docs/")
            assert window.page.url == f"http://127.0.0.1:{port}/ml/docs"
            status, shown = run_operation(window.page, "predict_iris")
        finally:
            proxy.terminate()
    assert status.strip().startswith("200"), shown
    assert "setosa" in shown
    assert any(url.startswith(f"http://127.0.0.1:{port}/ml/v1/models/iris:predict") for url in window.asked)
    assert window.said == []


def test_a_violation_would_be_seen(stack: Stack, window: Window) -> None:
    """The test's own eyes: an inline script and another host's image are refused by the policy, and noted."""
    window.page.goto(f"http://127.0.0.1:{stack.data}/docs")
    window.page.evaluate(
        "const image = new Image(); image.src = 'http://127.0.0.2:9/x.png'; document.body.append(image);"
        "const script = document.createElement('script'); script.textContent = 'window.ran = 1';"
        "document.body.append(script)"
    )
    window.page.wait_for_timeout(500)
    assert window.page.evaluate("window.ran") is None
    assert any("img-src" in line for line in window.said)
    assert any("script-src" in line for line in window.said)


def test_the_page_s_files_are_small_on_the_wire_and_kept(stack: Stack) -> None:
    """nginx compresses script and style; a browser may keep them for a year."""
    for name, most in (("swagger-ui-bundle.js", 700_000), ("swagger-ui.css", 60_000)):
        url = f"http://127.0.0.1:{stack.data}/docs/static/{SWAGGER}/{name}"
        request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
            assert "immutable" in answer.headers["Cache-Control"]
            assert len(answer.read()) < most


def test_the_banner_names_the_page(stack: Stack) -> None:
    """What `tableside run` shows names the page's address."""
    give_up_at = time.monotonic() + 30
    while "/docs" not in (stack.folder / "run.out").read_text() and time.monotonic() < give_up_at:
        time.sleep(0.1)
    assert f"http://127.0.0.1:{stack.data}/docs\n" in (stack.folder / "run.out").read_text()
