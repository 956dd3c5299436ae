"""The status page in a real browser: signing in by keyboard, both schemes, a phone, and the rules of axe-core."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from axe_playwright_python.sync_playwright import Axe
from flask import Flask
from playwright.sync_api import Page, expect

from tableside.errors import FailureKind
from tableside.serving.catalog import Catalog
from tests.conftest import KEY, MakeApp, registry_of
from tests.e2e.browser import Window
from tests.e2e.conftest import Stack, until

pytestmark = pytest.mark.e2e
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
ROWS = {"instances": [[5.1, 3.5, 1.4, 0.2]]}


@pytest.fixture(scope="module")
def stack(shared_stack: Stack) -> Stack:
    """The stack of several files."""
    return shared_stack


def sign_in(page: Page, url: str, key: str) -> None:
    """By keyboard only: from the first link of the page to the form, the key, and Enter."""
    page.goto(url)
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "key":
            break
    page.keyboard.type(key)
    page.keyboard.press("Enter")


def violations(page: Page) -> list[str]:
    """What axe-core finds on the page."""
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{each['id']}: {[node['html'] for node in each['nodes']]}" for each in found]


def check_looks(page: Page) -> None:
    """Wide and narrow, light and dark: no violation of a rule, and no part is wider than the screen."""
    for scheme, size in (("light", DESK), ("dark", PHONE)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type] # one of two words
        page.set_viewport_size(size)  # type: ignore[arg-type] # width and height
        assert violations(page) == [], (scheme, size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], (scheme, size)
    page.set_viewport_size(DESK)  # type: ignore[arg-type] # width and height


def test_an_operator_signs_in_by_keyboard_and_out(stack: Stack, window: Window) -> None:
    """The page of the real stack: the form, the models with their states, both workers; nothing is blocked or said."""
    url, page = f"http://127.0.0.1:{stack.admin}/", window.page
    stack.call("/v1/models/iris:predict", ROWS)
    page.goto(url)
    check_looks(page)
    sign_in(page, url, stack.key)
    expect(page.locator("#models")).to_be_visible()
    assert page.url == url
    for name in ("breast-cancer", "diabetes", "iris", "wine"):
        row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name, exact=True))
        expect(row.locator(".chip").first).to_have_text("READY")
    expect(page.locator(".facts")).to_contain_text("2 of 2")
    assert page.get_by_role("table").count() >= 2  # models and workers; a third one if somebody has changed something
    check_looks(page)
    assert stack.key not in page.content()
    page.get_by_role("button", name="Sign out").press("Enter")
    expect(page.locator("#key")).to_be_visible()
    assert window.said == []
    assert all(asked.startswith(url) for asked in window.asked)


def test_what_was_requested_is_plotted(stack: Stack, window: Window) -> None:
    """Each worker writes what it has answered within ten seconds; the page adds it up."""
    url, page = f"http://127.0.0.1:{stack.admin}/", window.page
    for _ in range(20):
        assert stack.call("/v1/models/iris:predict", ROWS)[0] == 200
    sign_in(page, url, stack.key)
    expect(page.locator("#models")).to_be_visible()

    def is_plotted() -> bool:
        page.reload()
        highest = page.locator(".large .top").inner_text().removeprefix("highest ").removesuffix("/s")
        return float(highest) >= 1.0  # 20 requests, of which at least ten are in the same ten seconds

    assert until(is_plotted, 40)


def test_a_wrong_key_is_explained(stack: Stack, window: Window) -> None:
    """The reason is an alert that the field refers to; the page below /admin/ has its style and passes axe."""
    page = window.page
    sign_in(page, f"http://127.0.0.1:{stack.admin}/", "no-key-of-this-server")
    expect(page.get_by_role("alert")).to_contain_text("This is no key of this server.")
    described = page.locator("#key").get_attribute("aria-describedby") or ""
    assert "problem" in described.split()
    check_looks(page)
    page.fill("#key", stack.key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#models")).to_be_visible()


def test_axe_would_see_a_mistake(stack: Stack, window: Window) -> None:
    """The test's own eyes: a field without a label and a text without contrast are found."""
    window.page.goto(f"http://127.0.0.1:{stack.admin}/")
    window.page.evaluate(
        "document.querySelector('label').remove(); document.querySelector('h1').setAttribute('hidden', '');"
        "document.querySelector('#key').removeAttribute('aria-describedby')"
    )
    assert any(each.startswith("label:") for each in violations(window.page))


class _Silent(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        """Print no line for a request."""


Serve = Callable[[Flask], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves an application as the control plane; returns its address."""
    servers = []

    def start(app: Flask) -> str:
        def control(environ: dict[str, Any], start_response: Any) -> Any:
            return app({**environ, "tableside.plane": "control"}, start_response)

        server = make_server("127.0.0.1", 0, control, handler_class=_Silent)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_problems_are_readable(make_app: MakeApp, small_repository: Path, serve: Serve, window: Window) -> None:
    """A version that cannot be served, a notice, a long name and a reason with HTML in it: words, not only colours."""
    (small_repository / "iris" / "2").mkdir()
    (small_repository / "iris" / "2" / "contract.json").write_bytes(b"{}")
    app = make_app()
    registry = registry_of(app)
    iris = registry.catalog.models["iris"]
    long = "a-name-as-long-as-names-of-models-may-be-" * 2
    iris.servables[0].report_problem("column '<script>document.title = 1</script>' " + "x" * 300, FailureKind.NONE)
    models = {"iris": iris, long: replace(iris, name=long)}
    registry.catalog = Catalog(1, models)
    page = window.page
    sign_in(page, serve(app), KEY)
    expect(page.get_by_text("Problem, version 2:").first).to_be_visible()
    expect(page.get_by_text("Note, version 1:").first).to_be_visible()
    assert page.title() == "Ready, with problems – Tableside"
    check_looks(page)
    page.get_by_role("link", name="Show only models with problems").click()
    assert "show=problems" in page.url
    assert window.said == []


def test_a_thousand_models_have_pages(make_app: MakeApp, serve: Serve, window: Window) -> None:
    """Fifty on each; links and search lead through them."""
    app = make_app()
    registry = registry_of(app)
    iris = registry.catalog.models["iris"]
    registry.catalog = Catalog(1, {f"m{n:04}": replace(iris, name=f"m{n:04}") for n in range(1000)})
    page = window.page
    sign_in(page, serve(app), KEY)
    expect(page.get_by_text("Page 1 of 20, 1000 models")).to_be_visible()
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_role("rowheader", name="m0050")).to_be_visible()
    check_looks(page)
    page.get_by_label("Name has").fill("M0777")
    page.keyboard.press("Enter")
    expect(page.get_by_role("rowheader", name="m0777")).to_be_visible()
    assert page.get_by_role("table").first.get_by_role("rowheader").count() == 1


def test_a_server_without_models_or_keys(make_app: MakeApp, serve: Serve, window: Window, tmp_path: Path) -> None:
    """What to do next is said, and readable."""
    app = make_app(empty=True)
    url, page = serve(app), window.page
    sign_in(page, url, KEY)
    expect(page.get_by_text("The repository has no models yet.")).to_be_visible()
    check_looks(page)
    (tmp_path / "run" / "admin.key").unlink()
    page.goto(url)
    expect(page.get_by_text("The admin routes are closed")).to_be_visible()
    check_looks(page)
