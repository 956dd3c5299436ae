"""What all workers say, in one line a version."""

from __future__ import annotations

from pathlib import Path

import msgspec

from app.errors import Trouble
from app.serving.lifecycle import State
from app.serving.overview import Entry, merged, overview, told

READY = Entry("m", 1, State.READY)
WARNED = Entry("m", 1, State.READY, Trouble.ENVIRONMENT, "another minor version")
LOADING = Entry("m", 1, State.LOADING, Trouble.NONE, "it is being tried")
FAILED = Entry("m", 1, State.UNAVAILABLE, Trouble.GOLDEN, "golden row 0")


def test_a_version_is_as_ready_as_its_worst_worker() -> None:
    """The worker that has most against a version speaks for all, whoever comes first."""
    order = [READY, WARNED, LOADING, FAILED]
    for at, worse in enumerate(order):
        for better in order[: at + 1]:
            assert merged([better, worse])["m", 1] == worse == merged([worse, better])["m", 1]


def test_workers_that_say_nothing_readable_are_passed_over() -> None:
    """A booting worker has no models yet; one of another release may say them otherwise."""
    strange = [{"pid": 1}, {"models": [{"name": "m"}]}, {"models": "?"}, {"models": msgspec.to_builtins([READY])}]
    assert told(strange) == [READY]


def test_what_is_served_but_gone_from_disk_is_listed(tmp_path: Path) -> None:
    """The overview has what the workers hold too, and an empty repository is no error."""
    assert overview(tmp_path / "none", [READY]) == [READY]
