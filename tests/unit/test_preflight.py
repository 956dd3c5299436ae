"""Preflights: what crashes or hangs does so in a process of its own, once on a host, and is blamed by name."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tableside.contract.environment import environment
from tableside.errors import FailureKind
from tableside.preflight import runner
from tableside.preflight.coordinator import PreflightCoordinator
from tableside.preflight.results import PreflightResult, ResultStore, VersionFiles, forget_failures
from tableside.process.offload import make_offload
from tableside.repository import paths
from tableside.serving.catalog import EMPTY
from tableside.serving.lifecycle import State
from tableside.serving.loader import versions_to_load
from tableside.serving.registry import Registry
from tableside.settings import Repository, load
from tableside.telemetry import metrics
from tests.misbehaving_estimators import TYPE, pids, publish_misbehaving, set_behaviour

POLICY = Repository(trusted_types=(TYPE,), load_timeout_s=3.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


def checked(root: Path, policy: Repository = POLICY) -> dict[str, PreflightResult]:
    return {found[0].name: found[1] for found in runner.run(root, versions_to_load(root, EMPTY), policy) if found}


@pytest.mark.processes
def test_each_ending_is_blamed_on_its_version_and_the_others_go_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One crash, exit or hang is one preflight result, with what the process wrote but no secret; those around it
    pass.
    """
    monkeypatch.setenv("MOODY_TOKEN", "hush-hush")
    moods = {
        "a-good": "", "b-segfault": "predict segfault", "d-exit": "load exit", "e-leave": "load leave",
        "f-hang": "predict hang", "g-shift": "predict shift", "h-good": "",
    }  # fmt: skip
    for name, words in moods.items():
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
    assert "the mood is segfault, token ***" in found["b-segfault"].stderr_tail
    assert "hush" not in str(found)
    assert str(os.getpid()) not in set().union(*(pids(root, name) for name in moods))


@pytest.mark.processes
def test_the_troubles_that_raise_have_their_class(root: Path) -> None:
    """Damage, an untrusted type and a torn contract are told apart, in one process."""
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


def test_a_process_that_cannot_begin_blames_nobody(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no process can be started, or it dies before its first version, nothing lasting is said of any version."""
    publish_misbehaving(root, "one")
    publish_misbehaving(root, "two")
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    gone = checked(root)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    dead = checked(root)
    for found in (gone, dead):
        assert [(v.failure_kind, v.is_permanent) for v in found.values()] == [(FailureKind.OTHER, False)] * 2
    assert "No such file" in gone["one"].reason
    assert "exit code 1" in dead["one"].reason


def last(rounds: Iterator[object]) -> dict[str, str]:
    *_, end = rounds
    assert end.complete  # type: ignore[attr-defined]
    return {each.name: result.failure_kind.value for each, result in end.known.items()}  # type: ignore[attr-defined]


@pytest.mark.processes
def test_a_verdict_is_remembered_until_something_changes(root: Path, tmp_path: Path) -> None:
    """A version that passed is not tried again; one that failed is, once asked for; other files or policy are new."""
    preflights = PreflightCoordinator(tmp_path / "preflight", make_offload(1))
    publish_misbehaving(root, "good", "calm")
    publish_misbehaving(root, "bad", "predict exit")
    assert last(preflights.rounds(root, POLICY, partial(versions_to_load, root, EMPTY))) == {
        "good": "",
        "bad": "crashed",
    }
    set_behaviour(root, "good", "predict exit")
    set_behaviour(root, "bad", "calm")
    assert last(preflights.rounds(root, POLICY, partial(versions_to_load, root, EMPTY))) == {
        "good": "",
        "bad": "crashed",
    }
    forget_failures(tmp_path / "preflight", "good")
    assert last(preflights.rounds(root, POLICY, partial(versions_to_load, root, EMPTY))) == {
        "good": "",
        "bad": "crashed",
    }
    forget_failures(tmp_path / "preflight", "bad")
    assert last(preflights.rounds(root, POLICY, partial(versions_to_load, root, EMPTY))) == {"good": "", "bad": ""}
    (root / "good" / "1" / paths.ARTIFACT).touch()
    assert last(preflights.rounds(root, POLICY, partial(versions_to_load, root, EMPTY))) == {
        "good": "crashed",
        "bad": "",
    }
    untrusting = Repository(load_timeout_s=3.0)
    assert last(preflights.rounds(root, untrusting, partial(versions_to_load, root, EMPTY))) == {
        "good": "untrusted",
        "bad": "untrusted",
    }


def test_workers_that_start_together_try_a_version_once(root: Path, tmp_path: Path) -> None:
    """Two that begin at once share one preflight, and one that waits for a hanging version does not try it again."""
    publish_misbehaving(root, "calm", "calm")
    publish_misbehaving(root, "sulky", "load hang")
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
    assert found == [{"calm": "", "sulky": "timeout"}] * 3
    assert (len(pids(root, "calm")), len(pids(root, "sulky"))) == (1, 1)


@pytest.mark.processes
def test_without_a_folder_every_worker_tries_for_itself(root: Path, tmp_path: Path) -> None:
    """Where nothing can be remembered the preflight is still held."""
    (tmp_path / "file").write_text("")
    publish_misbehaving(root, "bad", "predict exit")
    preflights = PreflightCoordinator(tmp_path / "file" / "preflight", make_offload(1))
    for _ in range(2):
        assert last(preflights.rounds(root, POLICY, partial(versions_to_load, root, EMPTY))) == {"bad": "crashed"}
    assert len(pids(root, "bad")) == 2


def test_only_versions_out_of_use_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder does not grow for ever, and what was learned last stays."""
    monkeypatch.setattr("tableside.preflight.results.KEEP", 3)
    result_store = ResultStore(tmp_path, POLICY)
    every = [VersionFiles("m", number, (("f", number, 1, 1),)) for number in range(1, 7)]
    for at, files in enumerate(every):
        result_store.write(files, PreflightResult(FailureKind.NONE))
        os.utime(result_store._path(files, environment()), (at, at))
    forget_failures(tmp_path)
    assert [each.version for each in result_store.read(every)] == [4, 5, 6]


def test_a_hanging_version_does_not_keep_the_others_waiting(root: Path, tmp_path: Path) -> None:
    """While one version is tried the others are served; the generation is reached when its preflight is over."""
    publish_misbehaving(root, "calm", "calm")
    publish_misbehaving(root, "sulky", "load hang")
    settings = load(
        {
            "TABLESIDE__REPOSITORY__PATH": str(root),
            "TABLESIDE__REPOSITORY__TRUSTED_TYPES": TYPE,
            "TABLESIDE__REPOSITORY__LOAD_TIMEOUT_S": "4",
        }
    )
    counters, offload = metrics.make(), make_offload(1)
    registry = Registry(settings, counters, offload, PreflightCoordinator(tmp_path / "preflight", offload))
    thread = threading.Thread(target=registry.reload, args=(7,))
    thread.start()
    early = registry.wait_loaded(30)
    assert thread.is_alive()
    assert early.servable("calm").version == 1
    assert (early.find("sulky").state, early.generation) == (State.LOADING, 0)
    thread.join(60)
    late = registry.catalog
    assert (late.find("sulky").failure_kind, late.generation) == (FailureKind.TIMEOUT, 7)
    assert late.servable("calm") is early.servable("calm")
    text = metrics.render(counters, None, ()).decode()
    assert 'tableside_model_problem{model="sulky",reason="timeout",version="1"} 1.0' in text
    set_behaviour(root, "sulky", "calm")
    forget_failures(tmp_path / "preflight")
    registry.reload(8)
    text = metrics.render(counters, None, ()).decode()
    assert 'tableside_model_problem{model="sulky",reason="timeout",version="1"} 0.0' in text
    assert registry.catalog.servable("sulky").version == 1


@pytest.mark.processes
def test_what_is_slow_is_left_to_itself(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions behind one that takes long are tried beside it, and each is tried once."""
    monkeypatch.setattr(runner, "SLOW_S", 2.0)
    for name, words in {"a": "load hang", "b": "calm", "c": "load hang", "d": "load exit", "e": "calm"}.items():
        publish_misbehaving(root, name, words)
    policy = Repository(trusted_types=(TYPE,), load_timeout_s=9.0)
    found = [each for each in runner.run(root, versions_to_load(root, EMPTY), policy) if each]
    failure_kinds = [(files.name, result.failure_kind.value) for files, result in found]
    assert dict(failure_kinds) == {"a": "timeout", "b": "", "c": "timeout", "d": "crashed", "e": ""}
    assert failure_kinds.index(("b", "")) < failure_kinds.index(("a", "timeout"))
    assert all(1 <= len(pids(root, name)) <= 2 for name in "abcde")  # once more where its beginning was not yet read


@pytest.mark.processes
def test_a_trial_ends_with_whoever_asked(root: Path) -> None:
    """A worker that is killed leaves no process behind that goes on hanging."""
    publish_misbehaving(root, "sulky", "load hang")
    code = f"""
import sys
from functools import partial
from pathlib import Path
from tableside.preflight import runner
from tableside.preflight.results import VersionFiles
from tableside.settings import Repository
policy = Repository(trusted_types=({TYPE!r},), load_timeout_s=60.0)
for _ in runner.run(Path({str(root)!r}), [VersionFiles("sulky", 1, None)], policy): pass
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-c", code], env=environ) as asker:
        give_up_at_s = time.monotonic() + 30
        while not pids(root, "sulky"):
            assert time.monotonic() < give_up_at_s
            time.sleep(0.05)
        asker.kill()
    (pid,) = pids(root, "sulky")
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]:
        assert time.monotonic() < give_up_at_s
        time.sleep(0.05)
