"""Version statuses: one line for each version, merged over all workers."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tableside.errors import FailureKind
from tableside.serving.lifecycle import State
from tableside.serving.servable import Servable
from tableside.serving.version_status import (
    VersionStatus,
    all_versions,
    merge_statuses,
    read_statuses,
    status_of_servable,
)
from tests.fakes import SumRuntime, sum_contract

READY = VersionStatus("m", 1, State.READY)
WARNED = VersionStatus("m", 1, State.READY, FailureKind.ENVIRONMENT, "another minor version")
LOADING = VersionStatus("m", 1, State.LOADING, FailureKind.NONE, "the preflight of this version is running")
FAILED = VersionStatus("m", 1, State.UNAVAILABLE, FailureKind.GOLDEN, "golden row 0")


def test_a_version_is_as_ready_as_its_worst_worker() -> None:
    """Of two statuses of a version the worse one is kept, in whatever order they come."""
    order = [READY, WARNED, LOADING, FAILED]
    for at, worse in enumerate(order):
        for better in order[: at + 1]:
            assert merge_statuses([better, worse])["m", 1] == worse == merge_statuses([worse, better])["m", 1]


def test_statuses_of_other_versions_are_not_merged() -> None:
    """Name and version together identify an entry."""
    others = [READY, VersionStatus("m", 2, State.UNAVAILABLE), VersionStatus("n", 1, State.LOADING)]
    assert list(merge_statuses(others).values()) == others


def test_status_files_of_another_form_are_skipped() -> None:
    """A starting worker has no models yet, and a worker of another release may write them in another form."""
    strange = [{"pid": 1}, {"models": [{"name": "m"}]}, {"models": "?"}, {"models": msgspec.to_builtins([READY])}]
    assert read_statuses(strange) == [READY]


def test_one_strange_entry_hides_only_its_own_worker() -> None:
    """A file with an unknown state is skipped as a whole, and the files of other workers are read."""
    unknown = {"models": [*msgspec.to_builtins([READY]), {"name": "m", "version": 2, "state": "DANCING"}]}
    assert read_statuses([unknown, {"models": msgspec.to_builtins([WARNED])}]) == [WARNED]


def test_a_served_version_that_is_gone_from_disk_is_listed(tmp_path: Path) -> None:
    """The list has what the workers hold, too, and a repository that does not exist is no error."""
    assert all_versions(tmp_path / "none", [READY]) == [READY]


@pytest.mark.parametrize(
    ("model_toml", "reasons"),
    [
        ("", {1: "not read yet", 2: "not read yet", 3: "not read yet"}),
        ('versions = "latest"\n', {1: "`versions` in model.toml", 2: "`versions` in model.toml", 3: "not read yet"}),
        ("versions = [2]\n", {1: "`versions` in model.toml", 2: "not read yet", 3: "`versions` in model.toml"}),
        ("enabled = false\n", dict.fromkeys((1, 2, 3), "enabled is false in model.toml")),
        ("[aliases\n", dict.fromkeys((1, 2, 3), "m/model.toml")),
    ],
)
def test_a_version_that_no_worker_knows_has_a_reason(tmp_path: Path, model_toml: str, reasons: dict[int, str]) -> None:
    """The reason is model.toml where that excludes the version, and a missing reload otherwise."""
    for version in reasons:
        (tmp_path / "m" / str(version)).mkdir(parents=True)
        (tmp_path / "m" / str(version) / "contract.json").write_text("{}")
    (tmp_path / "m" / "model.toml").write_text(model_toml)
    listed = all_versions(tmp_path, [])
    assert [entry.version for entry in listed] == [1, 2, 3]
    assert {entry.state for entry in listed} == {State.UNAVAILABLE}
    for entry in listed:
        assert reasons[entry.version] in entry.reason
    expected = FailureKind.CONTRACT if model_toml == "[aliases\n" else FailureKind.NONE
    assert {entry.failure_kind for entry in listed} == {expected}


def test_the_status_of_a_worker_wins_over_the_disk(tmp_path: Path) -> None:
    """A version that a worker knows is listed as the worker has it, and sorted among the others."""
    for version in (1, 2, 10):
        (tmp_path / "m" / str(version)).mkdir(parents=True)
        (tmp_path / "m" / str(version) / "contract.json").write_text("{}")
    known = VersionStatus("m", 2, State.READY)
    listed = all_versions(tmp_path, [known])
    assert [entry.version for entry in listed] == [1, 2, 10]
    assert listed[1] == known


def test_a_warning_leaves_a_version_current() -> None:
    """`current` is false only if the files changed and no longer load, while the old ones are served."""
    servable = Servable("sums", 1, sum_contract())
    servable.ready(SumRuntime(), 0.0, "another minor version")
    warned = status_of_servable(servable)
    assert (warned.state, warned.failure_kind, warned.current) == (State.READY, FailureKind.ENVIRONMENT, True)
    servable.report_problem("the files changed", FailureKind.DAMAGED)
    changed = status_of_servable(servable)
    assert (changed.reason, changed.failure_kind, changed.current) == ("the files changed", FailureKind.DAMAGED, False)
