"""Trials: what crashes or hangs does so in a process of its own, once on a host, and is blamed by name."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from moody import TYPE, pids, publish_moody, set_mood

from app import metrics
from app.concurrency.offload import make_offload
from app.errors import Trouble
from app.repository import integrity, paths
from app.serving import trial_runs
from app.serving.catalog import EMPTY
from app.serving.lifecycle import State
from app.serving.loader import candidates
from app.serving.registry import Registry
from app.serving.trials import Trials
from app.serving.verdicts import Candidate, Memory, Verdict, forget_failures
from app.settings import Repository, load

POLICY = Repository(trusted_types=(TYPE,), load_timeout_s=3.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


def tried(root: Path, policy: Repository = POLICY) -> dict[str, Verdict]:
    return {found[0].name: found[1] for found in trial_runs.run(root, candidates(root, EMPTY), policy) if found}


@pytest.mark.processes
def test_each_ending_is_blamed_on_its_version_and_the_others_go_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One crash, exit or hang is one verdict, with what the process wrote but no secret; those around it pass."""
    monkeypatch.setenv("MOODY_TOKEN", "hush-hush")
    moods = {
        "a-good": "", "b-segfault": "predict segfault", "d-exit": "load exit", "e-leave": "load leave",
        "f-hang": "predict hang", "g-shift": "predict shift", "h-good": "",
    }  # fmt: skip
    for name, words in moods.items():
        publish_moody(root, name, words)
    found = tried(root)
    assert {name: verdict.trouble.value for name, verdict in found.items()} == {
        "a-good": "", "b-segfault": "crashed", "d-exit": "crashed", "e-leave": "crashed",
        "f-hang": "timeout", "g-shift": "golden", "h-good": "",
    }  # fmt: skip
    assert "SIGSEGV" in found["b-segfault"].reason
    assert "exit code 0" in found["d-exit"].reason
    assert "SystemExit" in found["e-leave"].reason
    assert "repository.load_timeout_s (3 s)" in found["f-hang"].reason
    assert "the mood is segfault, token ***" in found["b-segfault"].tail
    assert "hush" not in str(found)
    assert str(os.getpid()) not in set().union(*(pids(root, name) for name in moods))


@pytest.mark.processes
def test_the_troubles_that_raise_have_their_class(root: Path) -> None:
    """Damage, an untrusted type and a torn contract are told apart, in one process."""
    for name in ("damaged", "torn", "untrusted"):
        publish_moody(root, name)
    for name, file in (("damaged", paths.ARTIFACT), ("torn", paths.CONTRACT)):
        path = root / name / "1" / file
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-9])
    found = tried(root, Repository())
    assert {name: verdict.trouble for name, verdict in found.items()} == {
        "damaged": Trouble.DAMAGED, "torn": Trouble.CONTRACT, "untrusted": Trouble.UNTRUSTED,
    }  # fmt: skip


def test_a_process_that_cannot_begin_blames_nobody(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no process can be started, or it dies before its first version, nothing lasting is said of any version."""
    publish_moody(root, "one")
    publish_moody(root, "two")
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    gone = tried(root)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    dead = tried(root)
    for found in (gone, dead):
        assert [(v.trouble, v.lasting) for v in found.values()] == [(Trouble.OTHER, False)] * 2
    assert "No such file" in gone["one"].reason
    assert "exit code 1" in dead["one"].reason


def last(rounds: Iterator[object]) -> dict[str, str]:
    *_, end = rounds
    assert end.complete  # type: ignore[attr-defined]
    return {each.name: verdict.trouble.value for each, verdict in end.known.items()}  # type: ignore[attr-defined]


@pytest.mark.processes
def test_a_verdict_is_remembered_until_something_changes(root: Path, tmp_path: Path) -> None:
    """A version that passed is not tried again; one that failed is, once asked for; other files or policy are new."""
    trials = Trials(tmp_path / "trials", make_offload(1))
    publish_moody(root, "good", "calm")
    publish_moody(root, "bad", "predict exit")
    assert last(trials.rounds(root, POLICY, EMPTY)) == {"good": "", "bad": "crashed"}
    set_mood(root, "good", "predict exit")
    set_mood(root, "bad", "calm")
    assert last(trials.rounds(root, POLICY, EMPTY)) == {"good": "", "bad": "crashed"}
    forget_failures(tmp_path / "trials", "good")
    assert last(trials.rounds(root, POLICY, EMPTY)) == {"good": "", "bad": "crashed"}
    forget_failures(tmp_path / "trials", "bad")
    assert last(trials.rounds(root, POLICY, EMPTY)) == {"good": "", "bad": ""}
    (root / "good" / "1" / paths.ARTIFACT).touch()
    assert last(trials.rounds(root, POLICY, EMPTY)) == {"good": "crashed", "bad": ""}
    untrusting = Repository(load_timeout_s=3.0)
    assert last(trials.rounds(root, untrusting, EMPTY)) == {"good": "untrusted", "bad": "untrusted"}


def test_workers_that_start_together_try_a_version_once(root: Path, tmp_path: Path) -> None:
    """Two that begin at once share one trial, and one that waits for a hanging version does not try it again."""
    publish_moody(root, "calm", "calm")
    publish_moody(root, "sulky", "load hang")
    policy = Repository(trusted_types=(TYPE,), load_timeout_s=3.0)
    found: list[dict[str, str]] = []

    def start() -> None:
        found.append(last(Trials(tmp_path / "trials", make_offload(1)).rounds(root, policy, EMPTY)))

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [{"calm": "", "sulky": "timeout"}] * 3
    assert (len(pids(root, "calm")), len(pids(root, "sulky"))) == (1, 1)


@pytest.mark.processes
def test_without_a_folder_every_worker_tries_for_itself(root: Path, tmp_path: Path) -> None:
    """Where nothing can be remembered the trial is still held."""
    (tmp_path / "file").write_text("")
    publish_moody(root, "bad", "predict exit")
    trials = Trials(tmp_path / "file" / "trials", make_offload(1))
    for _ in range(2):
        assert last(trials.rounds(root, POLICY, EMPTY)) == {"bad": "crashed"}
    assert len(pids(root, "bad")) == 2


def test_only_versions_out_of_use_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder does not grow for ever, and what was learned last stays."""
    monkeypatch.setattr("app.serving.verdicts.KEEP", 3)
    memory = Memory(tmp_path, POLICY)
    every = [Candidate("m", number, (("f", number, 1, 1),)) for number in range(1, 7)]
    for at, candidate in enumerate(every):
        memory.remember(candidate, Verdict(Trouble.NONE))
        os.utime(memory._path(candidate, integrity.environment()), (at, at))
    forget_failures(tmp_path)
    assert [each.version for each in memory.recall(every)] == [4, 5, 6]


def test_a_hanging_version_does_not_keep_the_others_waiting(root: Path, tmp_path: Path) -> None:
    """While one version is tried the others are served; the generation is reached when its trial is over."""
    publish_moody(root, "calm", "calm")
    publish_moody(root, "sulky", "load hang")
    settings = load(
        {
            "TABLESIDE__REPOSITORY__PATH": str(root),
            "TABLESIDE__REPOSITORY__TRUSTED_TYPES": TYPE,
            "TABLESIDE__REPOSITORY__LOAD_TIMEOUT_S": "4",
        }
    )
    counters, offload = metrics.make(), make_offload(1)
    registry = Registry(settings, counters, offload, Trials(tmp_path / "trials", offload))
    thread = threading.Thread(target=registry.reload, args=(7,))
    thread.start()
    early = registry.wait_loaded(30)
    assert thread.is_alive()
    assert early.servable("calm").version == 1
    assert (early.find("sulky").state, early.generation) == (State.LOADING, 0)
    thread.join(60)
    late = registry.catalog
    assert (late.find("sulky").trouble, late.generation) == (Trouble.TIMEOUT, 7)
    assert late.servable("calm") is early.servable("calm")
    text = metrics.render(counters, None, ()).decode()
    assert 'tableside_model_problem{model="sulky",reason="timeout",version="1"} 1.0' in text
    set_mood(root, "sulky", "calm")
    forget_failures(tmp_path / "trials")
    registry.reload(8)
    text = metrics.render(counters, None, ()).decode()
    assert 'tableside_model_problem{model="sulky",reason="timeout",version="1"} 0.0' in text
    assert registry.catalog.servable("sulky").version == 1


@pytest.mark.processes
def test_what_is_slow_is_left_to_itself(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions behind one that takes long are tried beside it, and each is tried once."""
    monkeypatch.setattr(trial_runs, "SLOW_S", 2.0)
    for name, words in {"a": "load hang", "b": "calm", "c": "load hang", "d": "load exit", "e": "calm"}.items():
        publish_moody(root, name, words)
    policy = Repository(trusted_types=(TYPE,), load_timeout_s=9.0)
    found = [each for each in trial_runs.run(root, candidates(root, EMPTY), policy) if each]
    troubles = [(candidate.name, verdict.trouble.value) for candidate, verdict in found]
    assert dict(troubles) == {"a": "timeout", "b": "", "c": "timeout", "d": "crashed", "e": ""}
    assert troubles.index(("b", "")) < troubles.index(("a", "timeout"))
    assert all(1 <= len(pids(root, name)) <= 2 for name in "abcde")  # once more where its beginning was not yet read


@pytest.mark.processes
def test_a_trial_ends_with_whoever_asked(root: Path) -> None:
    """A worker that is killed leaves no process behind that goes on hanging."""
    publish_moody(root, "sulky", "load hang")
    code = f"""
import sys
from pathlib import Path
from app.serving import trial_runs
from app.serving.verdicts import Candidate
from app.settings import Repository
policy = Repository(trusted_types=({TYPE!r},), load_timeout_s=60.0)
for _ in trial_runs.run(Path({str(root)!r}), [Candidate("sulky", 1, None)], policy): pass
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
