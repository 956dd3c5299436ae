"""What all workers say, in one line a version."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tableside.errors import FailureKind
from tableside.serving.lifecycle import State
from tableside.serving.version_status import VersionStatus, all_versions, merge_statuses, read_statuses

READY = VersionStatus("m", 1, State.READY)
WARNED = VersionStatus("m", 1, State.READY, FailureKind.ENVIRONMENT, "another minor version")
LOADING = VersionStatus("m", 1, State.LOADING, FailureKind.NONE, "it is being tried")
FAILED = VersionStatus("m", 1, State.UNAVAILABLE, FailureKind.GOLDEN, "golden row 0")


def test_a_version_is_as_ready_as_its_worst_worker() -> None:
    """The worker that has most against a version speaks for all, whoever comes first."""
    order = [READY, WARNED, LOADING, FAILED]
    for at, worse in enumerate(order):
        for better in order[: at + 1]:
            assert merge_statuses([better, worse])["m", 1] == worse == merge_statuses([worse, better])["m", 1]


def test_workers_that_say_nothing_readable_are_passed_over() -> None:
    """A booting worker has no models yet; one of another release may say them otherwise."""
    strange = [{"pid": 1}, {"models": [{"name": "m"}]}, {"models": "?"}, {"models": msgspec.to_builtins([READY])}]
    assert read_statuses(strange) == [READY]


def test_what_is_served_but_gone_from_disk_is_listed(tmp_path: Path) -> None:
    """The overview has what the workers hold too, and an empty repository is no error."""
    assert all_versions(tmp_path / "none", [READY]) == [READY]
