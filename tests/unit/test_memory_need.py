"""A version that would not fit into memory is refused with the figures, by what its first load took."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsClassifier

from tableside import machine
from tableside.errors import ContractBroken, FailureKind
from tableside.preflight import runner
from tableside.preflight.memory_need import Budget, Held, held_now
from tableside.preflight.results import VersionFiles, measured
from tableside.publishing.publish import publish
from tableside.settings import Repository
from tests.unit.test_machine import files

pytestmark = pytest.mark.no_greenlets
MB = 1_000_000
A, B, C = ("a", 1), ("b", 1), ("c", 1)


def refusal(budget: Budget, key: tuple[str, int], need: Held) -> str:
    with pytest.raises(ContractBroken) as caught:
        budget.admit(key, need)
    assert caught.value.failure_kind is FailureKind.MEMORY
    return str(caught.value)


@pytest.fixture
def free_200_mb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control group with 1 GB, of which 900 MB are used, 100 MB of that by files that the kernel may forget."""
    files(
        tmp_path,
        proc__self__cgroup="0::/",
        proc__meminfo="MemTotal: 16000000 kB\nMemAvailable: 8000000 kB",
        sys__fs__cgroup__memoryDOTmax=str(1000 * MB),
        sys__fs__cgroup__memoryDOTcurrent=str(900 * MB),
        sys__fs__cgroup__memoryDOTstat=f"anon 5\ninactive_file {60 * MB}\nactive_file {40 * MB}",
    )
    monkeypatch.setenv(machine.CGROUP_ROOT, str(tmp_path))


@pytest.mark.usefixtures("free_200_mb")
def test_what_is_free_decides(tmp_path: Path) -> None:
    """Each worker needs its own; shared memory counts once; what was promised before counts too; some stays free."""
    assert machine.free_bytes() == (200 * MB, "memory.max of this control group")
    budget = Budget(2)
    budget.admit(A, Held(50 * MB, 30 * MB))
    text = refusal(budget, B, Held(40 * MB, 10 * MB))
    assert "its load took 40 MB, which each of 2 workers takes, and 10 MB are shared: 90 MB in all" in text
    assert "memory.max of this control group has 190 MB for it, of which 130 MB are promised to versions before" in text
    budget.admit(B, Held(30 * MB))
    budget.admit(A, Held(50 * MB, 30 * MB))  # the same version again
    refusal(budget, C, Held(1 * MB))


@pytest.mark.usefixtures("free_200_mb")
def test_a_setting_limits_all_versions_together() -> None:
    """What is served counts by its own measurement, but for the version itself."""
    served = {A: Held(20 * MB), B: Held(10 * MB)}
    budget = Budget(2, 100, served)
    text = refusal(budget, C, Held(25 * MB))
    assert "repository.memory_budget_mb allows 100 MB, of which 60 MB are taken by other versions" in text
    budget.admit(C, Held(20 * MB))
    budget.admit(B, Held(10 * MB))
    refusal(budget, B, Held(11 * MB))


def test_limits_of_cgroup_v1(tmp_path: Path) -> None:
    """Its numbers of cached files are there twice: of the group, and with the groups below it."""
    root = files(
        tmp_path,
        proc__self__cgroup="4:memory:/",
        sys__fs__cgroup__memory__memoryDOTlimit_in_bytes=str(100 * MB),
        sys__fs__cgroup__memory__memoryDOTusage_in_bytes=str(90 * MB),
        sys__fs__cgroup__memory__memoryDOTstat=f"inactive_file 1\ntotal_inactive_file {20 * MB}\ntotal_active_file 5",
    )
    assert machine.free_bytes(root) == (30 * MB + 5, "memory.limit_in_bytes of this control group")


def test_nothing_is_refused_where_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without workers to load it, and without figures of the kernel."""
    Budget(0, 1).admit(A, Held(10**15))
    monkeypatch.setenv(machine.CGROUP_ROOT, str(tmp_path))
    assert machine.free_bytes() == (0, "")
    Budget(2).admit(A, Held(10**15))


def test_memory_of_this_process_is_measured() -> None:
    """An array that is written counts as own memory; less than before counts as nothing."""
    before = held_now()
    array = np.ones(4_000_000)
    grown = held_now().since(before)
    assert grown.own > 25 * MB
    assert array.nbytes == 32 * MB
    assert before.since(held_now()).own == 0


def test_results_keep_what_was_measured(tmp_path: Path) -> None:
    """Of each version the newest one that passed; results of older releases count as nothing."""
    rows = [
        {"name": "a", "version": 1, "time": 1.0, "failure_kind": "", "held": {"own": 1, "shared": 0}},
        {"name": "a", "version": 1, "time": 2.0, "failure_kind": "", "held": {"own": 2, "shared": 3}},
        {"name": "a", "version": 1, "time": 3.0, "failure_kind": "memory", "held": {"own": 9, "shared": 9}},
        {"name": "b", "version": 1, "time": 1.0, "failure_kind": ""},
    ]
    for number, row in enumerate(rows):
        (tmp_path / f"{number}.json").write_text(json.dumps(row))
    (tmp_path / "cut.json").write_text("{")
    assert measured(tmp_path) == {A: Held(2, 3), B: Held()}


@pytest.mark.slow
@pytest.mark.processes
def test_a_preflight_measures_and_refuses(tmp_path: Path) -> None:
    """A model that holds 13 MB: it passes with its measurement, and is refused with it where less is allowed."""
    frame = pd.DataFrame(np.random.default_rng(1).normal(size=(200_000, 8)), columns=list("abcdefgh"))
    model = KNeighborsClassifier(1, algorithm="brute").fit(frame, frame["a"] > 0)
    publish("large", model, frame.head(30), repository=tmp_path, quick=True, runtime="sklearn")
    wanted = [VersionFiles("large", 1, None)]

    def result(budget_mb: int) -> object:
        policy = Repository(memory_budget_mb=budget_mb)
        return next(each for each in runner.run(tmp_path, wanted, policy, workers=2) if each is not None)[1]

    passed = result(2000)
    assert passed.failure_kind is FailureKind.NONE, passed  # type: ignore[attr-defined]
    assert passed.held.own > 12 * MB  # type: ignore[attr-defined]
    refused = result(20)
    assert refused.failure_kind is FailureKind.MEMORY  # type: ignore[attr-defined]
    assert "repository.memory_budget_mb allows 20 MB" in refused.reason  # type: ignore[attr-defined]
