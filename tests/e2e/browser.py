"""A real browser, which keeps what it says and asks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

from playwright.sync_api import Page, expect, sync_playwright

WAIT_MS = 60_000


@dataclass
class Window:
    """A page, and what the browser said while it was open."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


def open_window() -> Iterator[Window]:
    """Start a fresh browser for one test. Every console line, page error, policy violation and request is kept."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "no chromium here: run `make chromium`"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page(ignore_https_errors=True)  # the certificates of tests are those of no browser
        page.set_default_timeout(WAIT_MS)
        one = Window(page)
        page.on("console", lambda line: one.said.append(f"{line.type}: {line.text}"))
        page.on("pageerror", lambda error: one.said.append(f"pageerror: {error}"))
        page.on("requestfailed", lambda request: one.said.append(f"failed: {request.url}"))
        page.on("request", lambda request: one.asked.append(request.url))
        page.add_init_script(
            "document.addEventListener('securitypolicyviolation',"
            " event => console.error('policy: ' + event.violatedDirective + ' ' + event.blockedURI))"
        )
        yield one
        browser.close()


def run_operation(page: Page, operation: str) -> tuple[str, str]:
    """Open an operation, try it out with its first example, and read the answer's status and body."""
    block = page.locator(f"[id$='-{operation}']").first
    block.locator(".opblock-summary-control").first.click()
    block.get_by_role("button", name="Try it out").click()
    block.get_by_role("button", name="Execute", exact=True).click()
    live = block.locator(".live-responses-table .response").first
    expect(live).to_be_visible(timeout=WAIT_MS)
    return live.locator(".response-col_status").inner_text(), live.locator(".response-col_description").inner_text()
