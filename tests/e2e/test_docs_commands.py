"""Every command of the README and of the guides is run, page by page, against a stack started as the page says."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs_commands import Block, Shell, Step, matches, read_blocks, read_steps
from tests.e2e.conftest import BIN, PROJECT, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs/guide").glob("*.md"))]
NOT_RUN = 17
"""Blocks of all pages that are not run. Each says why on the page; raise this number with the reason in mind."""
LINKED = ("supervisord.conf", "tests", "training", "wsgi.py")
"""What a reader's folder has beside the models and the run folder, as far as the pages use it."""
COPIED = ("client",)
"""The same, for folders in which a command of a page writes."""
START = re.compile(r"^make run\b.*$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_do_what_it_says(page: Path, make_stack: Callable[..., Stack]) -> None:
    """Each block ends without an error, and prints what the page shows."""
    stack = make_stack(start=False)
    for name in LINKED:
        (stack.folder / name).symlink_to(PROJECT / name)
    for name in COPIED:
        shutil.copytree(PROJECT / name, stack.folder / name)
    (stack.folder / ".venv").symlink_to(BIN.parent)
    config = stack.folder / "tableside.toml"
    config.touch()
    stack.environ["TABLESIDE__SERVER__KEYS_FILE"] = str(stack.folder / "keys.json")  # not in the project's folder
    stack.environ["TABLESIDE_CONFIG"] = str(config)  # a reader's file is in the folder of the project
    stack.environ["TABLESIDE__REPOSITORY__LOAD_TIMEOUT_S"] = "600"  # `reload` waits so long, also on a busy machine
    environ = {**stack.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(PROJECT / "client")}
    environ["PIP_COMPILE"] = "0"  # pip would compile every module that it installs; the pages import a few of them
    shell = Shell(stack.folder, environ)
    try:
        for block in read_blocks(page.read_text()):
            if block.skipped is None:
                run_block(block, shell, stack, page.name)
    finally:
        shell.close()
        stack.stop()


def run_block(block: Block, shell: Shell, stack: Stack, page: str) -> None:
    if block.language == "sh" and START.search(block.text):
        # The rule of `make run` ends in this command; it is run without make, in the environment of the tests.
        assert "exec $(BIN)/tableside run" in (PROJECT / "Makefile").read_text()
        stack.start()
        stack.wait_loaded()
        return
    for step in read_steps(block):
        step = for_stack(step, stack)
        where = f"{page}, line {block.line}: {step.command}"
        status, printed = shell.run(f"set -e\n{step.command}\nset +e" if block.language == "sh" else step.command)
        fails = step.expected is not None and re.search(
            r"^(tableside: |FAIL |  \S+ is UNAVAILABLE: |  \S+/model\.toml: )", step.expected, re.MULTILINE
        )
        assert bool(status) == bool(fails), f"{where}\nexit status {status}\n{printed}"
        if step.expected is not None:
            assert matches(step.expected, printed), f"{where}\nprinted:\n{printed}"


def for_stack(step: Step, stack: Stack) -> Step:
    """The step with this stack's ports in place of the default ones."""

    def changed(text: str) -> str:
        return text.replace("127.0.0.1:8080", f"127.0.0.1:{stack.data}").replace(
            "127.0.0.1:8081", f"127.0.0.1:{stack.admin}"
        )

    return Step(changed(step.command), None if step.expected is None else changed(step.expected))


def test_blocks_that_are_not_run_say_why() -> None:
    """A block is left out only with a reason on the page, and there are as many as this file says."""
    skipped = [
        (page.name, block) for page in PAGES for block in read_blocks(page.read_text()) if block.skipped is not None
    ]
    assert [(name, block.line) for name, block in skipped if not block.skipped] == []
    assert len(skipped) == NOT_RUN, [(name, block.line, block.skipped) for name, block in skipped]


def test_every_page_runs_something() -> None:
    """A guide without a command would not be tested."""
    assert [page.name for page in PAGES if not any(b.skipped is None for b in read_blocks(page.read_text()))] == []
