"""Splits the tests of one step over processes that run side by side, where pytest-xdist does not work."""

from __future__ import annotations

from pathlib import Path

import pytest

PATHS = ("--basetemp", "--junitxml", "--override-ini=cache_dir")
"""Options of pytest that name a folder or file which two processes cannot share."""
PART = "TABLESIDE_TEST_PART"
"""The number of the part that this process runs, from 0; unset in the process that starts the parts."""
PARTS = 2
"""As many as `-n 2` of the other steps. pytest-xdist itself does not work in a process that gevent patched."""


class FilesOfPart:
    """A plugin of pytest: it keeps the tests of every PARTS-th file, beginning with the largest."""

    def __init__(self, part: int) -> None:
        self._part = part

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Deselect what the other parts run. With `--last-failed` nothing: each part remembers its own failures."""
        if config.getoption("lf"):
            return
        paths = sorted({item.path for item in items}, key=lambda path: (-path.stat().st_size, path))
        number = {path: index for index, path in enumerate(paths)}
        others = [item for item in items if number[item.path] % PARTS != self._part]
        items[:] = [item for item in items if number[item.path] % PARTS == self._part]
        config.hook.pytest_deselected(items=others)


def of_part(options: str, part: int) -> str:
    """The options of pytest in PYTEST_ADDOPTS, with a folder and a report of their own for this part."""

    def changed(option: str) -> str:
        name, _, value = option.rpartition("=")
        path = Path(value)
        return f"{name}={path.with_name(f'{path.stem}{part}{path.suffix}')}" if name in PATHS else option

    return " ".join(changed(option) for option in options.split())
