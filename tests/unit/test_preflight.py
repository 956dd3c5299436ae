"""Preflights: a version that crashes or hangs does so in a separate process, once on a host, and gets the failure."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer

from tableside.contracts import schema
from tableside.contracts.environment import sha256
from tableside.errors import FailureKind
from tableside.preflight import runner
from tableside.preflight.coordinator import PreflightCoordinator
from tableside.preflight.results import PreflightResult, ResultStore, VersionFiles, forget_failures
from tableside.process.offload import make_offload
from tableside.publishing.publish import publish
from tableside.repository import integrity, paths
from tableside.runtimes.skops_names import rename_modules
from tableside.serving.catalog import EMPTY
from tableside.serving.lifecycle import State
from tableside.serving.registry import Registry
from tableside.serving.scan import versions_to_load
from tableside.settings import Repository, load
from tableside.telemetry import metrics
from tests.misbehaving_estimators import SECRET_VARIABLE, TYPE, pids, publish_misbehaving, set_behaviour

POLICY = Repository(trusted_types=(TYPE,), load_timeout_s=3.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


def checked(root: Path, policy: Repository = POLICY) -> dict[str, PreflightResult]:
    return {found[0].name: found[1] for found in runner.run(root, versions_to_load(root, EMPTY), policy) if found}


@pytest.mark.slow
@pytest.mark.processes
def test_each_failure_belongs_to_its_version_and_the_others_pass(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash, an exit or a hang is the result of one version, with the end of stderr and without secrets in it."""
    monkeypatch.setenv(SECRET_VARIABLE, "hush-hush")
    behaviours = {
        "a-good": "", "b-segfault": "predict segfault", "d-exit": "load exit", "e-leave": "load leave",
        "f-hang": "predict hang", "g-shift": "predict shift", "h-good": "",
    }  # fmt: skip
    for name, words in behaviours.items():
        publish_misbehaving(root, name, words)
    found = checked(root)
    assert {name: result.failure_kind.value for name, result in found.items()} == {
        "a-good": "", "b-segfault": "crashed", "d-exit": "crashed", "e-leave": "crashed",
        "f-hang": "timeout", "g-shift": "golden", "h-good": "",
    }  # fmt: skip
    assert "SIGSEGV" in found["b-segfault"].reason
    assert "exit code 0" in found["d-exit"].reason
    assert "SystemExit" in found["e-leave"].reason
    assert "repository.load_timeout_s (3 s)" in found["f-hang"].reason
    assert "behaviour segfault, token ***" in found["b-segfault"].stderr_tail
    assert "hush" not in str(found)
    assert str(os.getpid()) not in set().union(*(pids(root, name) for name in behaviours))


@pytest.mark.processes
@pytest.mark.slow
def test_failures_that_raise_have_their_kind(root: Path) -> None:
    """A damaged artifact, an untrusted type and a torn contract have different failure kinds."""
    for name in ("damaged", "torn", "untrusted"):
        publish_misbehaving(root, name)
    for name, file in (("damaged", paths.ARTIFACT), ("torn", paths.CONTRACT)):
        path = root / name / "1" / file
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-9])
    found = checked(root, Repository())
    assert {name: result.failure_kind for name, result in found.items()} == {
        "damaged": FailureKind.DAMAGED, "torn": FailureKind.CONTRACT, "untrusted": FailureKind.UNTRUSTED,
    }  # fmt: skip


def test_a_type_that_another_library_release_has_is_the_environments_fault(root: Path) -> None:
    """Types move between minor versions of scipy: the failure names both versions and the ways out."""
    sample = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
    fitted = make_pipeline(SplineTransformer(), LinearRegression()).fit(sample, [1, 2, 3])
    publish("m", fitted, sample, repository=root)
    folder = root / "m" / "1"
    for file in folder.iterdir():
        file.chmod(0o644)
    moved = rename_modules((folder / paths.ARTIFACT).read_bytes(), lambda name: name.replace("_bsplines", "_moved"))
    (folder / paths.ARTIFACT).write_bytes(moved)
    contract = integrity.read_contract(root, "m", 1)
    artifact = msgspec.structs.replace(contract.artifact, sha256=sha256(folder / paths.ARTIFACT), size_bytes=len(moved))
    there = {**contract.environment, "scipy": "0.1.0"}
    (folder / paths.CONTRACT).write_bytes(
        schema.encode(msgspec.structs.replace(contract, artifact=artifact, environment=there))
    )
    found = checked(
        root, Repository(trusted_types=tuple(f"scipy.interpolate._moved.{name}" for name in ("BSpline", "_BSpline")))
    )["m"]
    assert found.failure_kind is FailureKind.ENVIRONMENT
    assert "model.skops cannot be loaded: ModuleNotFoundError: " in found.reason
    assert "scipy was 0.1.0 at publish and is" in found.reason
    assert "environment = NAME in model.toml" in found.reason


def test_a_process_that_cannot_start_fails_no_version(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no process can be started, or it ends before its first version, the results are not permanent."""
    publish_misbehaving(root, "one")
    publish_misbehaving(root, "two")
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    gone = checked(root)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    dead = checked(root)
    for found in (gone, dead):
        assert all("no preflight process could be started" in v.reason for v in found.values())
        assert all(v.reason.endswith("the next reload tries again") for v in found.values())
        assert [(v.failure_kind, v.is_permanent) for v in found.values()] == [(FailureKind.OTHER, False)] * 2
    assert "No such file" in gone["one"].reason
    assert "exit code 1" in dead["one"].reason


def last(rounds: Iterator[object]) -> dict[str, str]:
    *_, end = rounds
    assert end.complete  # type: ignore[attr-defined]
    return {each.name: result.failure_kind.value for each, result in end.known.items()}  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.processes
def test_a_result_is_kept_until_something_changes(root: Path, tmp_path: Path) -> None:
    """A kept result is used until it is removed, or the files or the settings change."""
    preflights = PreflightCoordinator(tmp_path / "preflight", make_offload(1))

    def results(policy: Repository = POLICY) -> dict[str, str]:
        return last(preflights.rounds(root, policy, partial(versions_to_load, root, EMPTY)))

    publish_misbehaving(root, "good", "none")
    publish_misbehaving(root, "bad", "predict exit")
    assert results() == {"good": "", "bad": "crashed"}
    set_behaviour(root, "good", "predict exit")
    set_behaviour(root, "bad", "none")
    assert results() == {"good": "", "bad": "crashed"}
    forget_failures(tmp_path / "preflight", "good")
    assert results() == {"good": "", "bad": "crashed"}
    forget_failures(tmp_path / "preflight", "bad")
    assert results() == {"good": "", "bad": ""}
    (root / "good" / "1" / paths.ARTIFACT).touch()
    assert results() == {"good": "crashed", "bad": ""}
    assert results(Repository(load_timeout_s=3.0)) == {"good": "untrusted", "bad": "untrusted"}


@pytest.mark.slow
def test_workers_that_start_together_run_one_preflight(root: Path, tmp_path: Path) -> None:
    """Three coordinators that start at once load each version once, also one that hangs."""
    publish_misbehaving(root, "good", "none")
    publish_misbehaving(root, "hangs", "load hang")
    policy = Repository(trusted_types=(TYPE,), load_timeout_s=3.0)
    found: list[dict[str, str]] = []

    def start() -> None:
        found.append(
            last(
                PreflightCoordinator(tmp_path / "preflight", make_offload(1)).rounds(
                    root, policy, partial(versions_to_load, root, EMPTY)
                )
            )
        )

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [{"good": "", "hangs": "timeout"}] * 3
    assert (len(pids(root, "good")), len(pids(root, "hangs"))) == (1, 1)


@pytest.mark.slow
@pytest.mark.processes
def test_without_a_folder_every_worker_runs_its_own_preflights(root: Path, tmp_path: Path) -> None:
    """Where no result can be kept, each worker runs the preflight itself."""
    (tmp_path / "file").write_text("")
    publish_misbehaving(root, "bad", "predict exit")
    preflights = PreflightCoordinator(tmp_path / "file" / "preflight", make_offload(1))
    for _ in range(2):
        assert last(preflights.rounds(root, POLICY, partial(versions_to_load, root, EMPTY))) == {"bad": "crashed"}
    assert len(pids(root, "bad")) == 2


def test_only_the_oldest_results_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`forget_failures` leaves the KEEP newest results."""
    monkeypatch.setattr("tableside.preflight.results.KEEP", 3)
    result_store = ResultStore(tmp_path, POLICY)
    every = [VersionFiles("m", number, (("f", number, 1, 1),)) for number in range(1, 7)]
    for at, files in enumerate(every):
        result_store.write(files, PreflightResult(FailureKind.NONE))
        os.utime(result_store.path(files), (at, at))
    forget_failures(tmp_path)
    assert [each.version for each in result_store.read(every)] == [4, 5, 6]


@pytest.mark.slow
def test_a_hanging_version_does_not_keep_the_others_waiting(root: Path, tmp_path: Path) -> None:
    """While one preflight runs the other versions are served; the first load is over when it is."""
    publish_misbehaving(root, "good", "none")
    publish_misbehaving(root, "hangs", "load hang")
    settings = load(
        {
            "TABLESIDE__REPOSITORY__PATH": str(root),
            "TABLESIDE__REPOSITORY__TRUSTED_TYPES": TYPE,
            "TABLESIDE__REPOSITORY__LOAD_TIMEOUT_S": "15",
        }
    )
    counters, offload = metrics.make(), make_offload(1)
    registry = Registry(settings, counters, offload, PreflightCoordinator(tmp_path / "preflight", offload))
    thread = threading.Thread(target=registry.reload, args=(7,))
    thread.start()
    early = registry.wait_loaded(120)
    assert thread.is_alive()
    assert early.servable("good").version == 1
    assert (early.find("hangs").state, registry.is_complete) == (State.LOADING, False)
    thread.join(60)
    late = registry.catalog
    assert (late.find("hangs").failure_kind, late.generation) == (FailureKind.TIMEOUT, 7)
    assert late.servable("good") is early.servable("good")
    text = metrics.render(counters, None, ()).decode()
    assert 'tableside_model_problem{model="hangs",reason="timeout",version="1"} 1.0' in text
    set_behaviour(root, "hangs", "good")
    forget_failures(tmp_path / "preflight")
    registry.reload(8)
    text = metrics.render(counters, None, ()).decode()
    assert 'tableside_model_problem{model="hangs",reason="timeout",version="1"} 0.0' in text
    assert registry.catalog.servable("hangs").version == 1


@pytest.mark.slow
@pytest.mark.processes
def test_versions_behind_a_slow_one_run_beside_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After SLOW_S on one version, the versions behind it get another process, and each has one result."""
    monkeypatch.setattr(runner, "SLOW_S", 2.0)
    for name, words in {"a": "load hang", "b": "good", "c": "load hang", "d": "load exit", "e": "good"}.items():
        publish_misbehaving(root, name, words)
    policy = Repository(trusted_types=(TYPE,), load_timeout_s=25.0)
    found = [each for each in runner.run(root, versions_to_load(root, EMPTY), policy) if each]
    failure_kinds = [(files.name, result.failure_kind.value) for files, result in found]
    assert dict(failure_kinds) == {"a": "timeout", "b": "", "c": "timeout", "d": "crashed", "e": ""}
    assert failure_kinds.index(("b", "")) < failure_kinds.index(("a", "timeout"))
    assert all(1 <= len(pids(root, name)) <= 2 for name in "abcde")  # once more where its beginning was not yet read


@pytest.mark.processes
@pytest.mark.slow
def test_a_preflight_ends_with_its_worker(root: Path) -> None:
    """The preflight process of a worker that is killed is killed as well."""
    publish_misbehaving(root, "hangs", "load hang")
    code = f"""
import sys
from functools import partial
from pathlib import Path
from tableside.preflight import runner
from tableside.preflight.results import VersionFiles
from tableside.settings import Repository
policy = Repository(trusted_types=({TYPE!r},), load_timeout_s=60.0)
for _ in runner.run(Path({str(root)!r}), [VersionFiles("hangs", 1, None)], policy): pass
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-c", code], env=environ) as worker:
        give_up_at_s = time.monotonic() + 30
        while not pids(root, "hangs"):
            assert time.monotonic() < give_up_at_s
            time.sleep(0.05)
        worker.kill()
    (pid,) = pids(root, "hangs")
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]:
        assert time.monotonic() < give_up_at_s
        time.sleep(0.05)


FILES = VersionFiles("m", 1, (("model.skops", 1, 2, 3),))
FAILURE = PreflightResult(FailureKind.CRASHED, "SIGSEGV", "stderr")


def test_a_kept_result_has_kind_and_reason(tmp_path: Path) -> None:
    """Another store of the same folder reads the failure kind and the reason; stderr is only for the log."""
    ResultStore(tmp_path / "results", POLICY).write(FILES, FAILURE)
    assert ResultStore(tmp_path / "results", POLICY).read([FILES]) == {
        FILES: PreflightResult(FailureKind.CRASHED, "SIGSEGV")
    }


@pytest.mark.parametrize(
    ("files", "result"),
    [
        (FILES, PreflightResult(FailureKind.OTHER, "no process", is_permanent=False)),
        (VersionFiles("m", 1, None), FAILURE),
    ],
)
def test_results_of_a_passing_cause_are_not_kept(tmp_path: Path, files: VersionFiles, result: PreflightResult) -> None:
    """A result that is not permanent, or of files that could not be read, leaves no file."""
    store = ResultStore(tmp_path, POLICY)
    store.write(files, result)
    assert store.read([files]) == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"failure_kind": "unknown"}', b"\xff\xfe"])
def test_an_unreadable_result_is_no_result(tmp_path: Path, content: bytes) -> None:
    """A result file that is torn, or written by another release, is treated as missing and can be replaced."""
    store = ResultStore(tmp_path, POLICY)
    store.write(FILES, FAILURE)
    store.path(FILES).write_bytes(content)
    assert store.read([FILES]) == {}
    store.write(FILES, FAILURE)
    assert store.read([FILES])[FILES].reason == "SIGSEGV"


@pytest.mark.parametrize(
    "policy",
    [
        Repository(trusted_types=("other",), load_timeout_s=3.0),
        Repository(trusted_types=(TYPE,), load_timeout_s=4.0),
        Repository(trusted_types=(TYPE,), load_timeout_s=3.0, environment_skew="warn"),
        Repository(trusted_types=(TYPE,), load_timeout_s=3.0, shared_memory_above_mb=7),
    ],
)
def test_settings_that_matter_are_part_of_a_result(tmp_path: Path, policy: Repository) -> None:
    """A result is not used under other trusted types, time limits, environment rules or sharing limits."""
    ResultStore(tmp_path, POLICY).write(FILES, FAILURE)
    assert ResultStore(tmp_path, policy).read([FILES]) == {}
    assert FILES in ResultStore(tmp_path, Repository(trusted_types=(TYPE,), load_timeout_s=3.0)).read([FILES])


def test_one_process_holds_the_lock(tmp_path: Path) -> None:
    """A second lock returns None until the first descriptor is closed, and -1 where there can be no lock file."""
    store, other = ResultStore(tmp_path / "results", POLICY), ResultStore(tmp_path / "results", POLICY)
    held = store.lock()
    assert held is not None
    assert held >= 0
    assert other.lock() is None
    os.close(held)
    again = other.lock()
    assert again is not None
    os.close(again)
    (tmp_path / "file").write_text("")
    assert ResultStore(tmp_path / "file" / "results", POLICY).lock() == -1


def test_failures_of_one_model_are_removed_alone(tmp_path: Path) -> None:
    """`forget_failures` removes the failures of the named model, or of all models, and no success."""
    store = ResultStore(tmp_path, POLICY)
    mine, other, good = (VersionFiles(name, 1, FILES.fingerprint) for name in ("mine", "other", "good"))
    store.write(mine, FAILURE)
    store.write(other, FAILURE)
    store.write(good, PreflightResult(FailureKind.NONE))
    forget_failures(tmp_path, "mine")
    assert set(store.read([mine, other, good])) == {other, good}
    forget_failures(tmp_path)
    assert set(store.read([mine, other, good])) == {good}


def test_no_folder_has_no_failures(tmp_path: Path) -> None:
    """`forget_failures` does nothing where the folder does not exist or a file in it is not JSON."""
    forget_failures(tmp_path / "none")
    (tmp_path / "torn.json").write_text("{")
    forget_failures(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["torn.json"]


def test_kept_results_need_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If every version has a kept result, `rounds` yields them once, complete, and starts no process."""
    ResultStore(tmp_path, POLICY).write(FILES, FAILURE)
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("a process was started"))
    (results,) = PreflightCoordinator(tmp_path, make_offload(1)).rounds(tmp_path, POLICY, lambda: [FILES])
    assert results.complete
    assert results.known[FILES].failure_kind is FailureKind.CRASHED


def test_no_versions_are_complete_at_once(tmp_path: Path) -> None:
    """With nothing to load, `rounds` yields one complete and empty result."""
    (results,) = PreflightCoordinator(tmp_path, make_offload(1)).rounds(tmp_path, POLICY, list)
    assert (results.complete, dict(results.known)) == (True, {})
