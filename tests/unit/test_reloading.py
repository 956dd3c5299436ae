"""Reloads: each version serves when it is loaded, asked-for versions first, and unchanged models cost nothing."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tableside.contracts import schema
from tableside.errors import FailureKind, ModelNotFound, ModelNotReady
from tableside.preflight.results import PreflightResult, PreflightResults, VersionFiles
from tableside.process.offload import make_offload
from tableside.repository import integrity, model_toml_edits
from tableside.serving import registry as registry_module
from tableside.serving.lifecycle import State
from tableside.serving.loader import Loader
from tableside.serving.registry import Registry
from tableside.serving.reloading import THREADS, Reload
from tableside.serving.scan import PendingVersion
from tableside.serving.servable import Servable
from tableside.serving.worker_status import status_of
from tableside.settings import load
from tableside.telemetry import metrics
from tests.waiting import wait_until


def copy(root: Path, name: str, version: int = 1) -> Path:
    """Copy iris/1 as another version."""
    folder = root / name / str(version)
    shutil.copytree(root / "iris" / "1", folder)
    contract = schema.decode((folder / "contract.json").read_bytes())
    (folder / "contract.json").chmod(0o644)
    (folder / "contract.json").write_bytes(schema.encode(msgspec.structs.replace(contract, name=name, version=version)))
    return folder


def registry_for(root: Path, **more: str) -> Registry:
    """A registry of a repository. more: further settings, as environment variables."""
    known = {"TABLESIDE__REPOSITORY__PATH": str(root), "TABLESIDE__SERVER__RUN_DIR": str(root.parent / "run")}
    settings = load({**known, **more})
    return Registry(settings, metrics.make(), make_offload(THREADS))


class Gate:
    """Loads that wait for `open`. order: the versions in the order in which their loads began."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, closed: Callable[[tuple[str, int]], bool]) -> None:
        self.order: list[tuple[str, int]] = []
        self.entered = threading.Event()
        self.open = threading.Event()
        load_version = Loader.load

        def load(loader: Loader, pending: PendingVersion, *rest: PreflightResult) -> Servable:
            self.order.append(pending.key)
            if closed(pending.key):
                self.entered.set()
                assert self.open.wait(60)
            return load_version(loader, pending, *rest)

        monkeypatch.setattr(Loader, "load", load)


@pytest.fixture
def started() -> Iterator[Callable[[Registry], threading.Thread]]:
    """Start a registry's first reload in a thread, which the test waits for at its end."""
    threads = []

    def start(registry: Registry) -> threading.Thread:
        threads.append(threading.Thread(target=registry.reload, args=(1,)))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join(60)


def test_the_model_that_is_asked_for_loads_first(
    small_repository: Path, monkeypatch: pytest.MonkeyPatch, started: Callable[[Registry], threading.Thread]
) -> None:
    """Beside a load that takes long, a second thread loads what a request waits for, before all others."""
    for name in ("a", "b", "z"):
        copy(small_repository, name)
    registry = registry_for(small_repository)
    gate = Gate(monkeypatch, closed=lambda key: key == ("a", 1))
    started(registry)
    assert gate.entered.wait(60)
    assert registry.wait_servable("z", None, 60).state is State.READY
    assert gate.order == [("a", 1), ("z", 1)]
    assert registry.missing() == ["a/1", "b/1", "iris/1"]
    with pytest.raises(ModelNotFound):
        registry.wait_servable("none", None, 60)
    status = status_of(registry, "w", datetime.now(UTC))
    assert (status["ready"], status["missing"]) == (False, ["a/1", "b/1", "iris/1"])
    gate.open.set()
    assert registry.wait_servable("a", None, 60).state is State.READY


def test_a_new_worker_answers_with_the_newest_version(
    small_repository: Path, monkeypatch: pytest.MonkeyPatch, started: Callable[[Registry], threading.Thread]
) -> None:
    """In its first load a worker lets a request without a version wait for the newest, which other workers serve."""
    copy(small_repository, "iris", 2)
    registry = registry_for(small_repository)
    gate = Gate(monkeypatch, closed=lambda key: key == ("iris", 2))
    started(registry)
    assert gate.entered.wait(60)
    assert registry.wait_servable("iris", "1", 60).version == 1
    got: list[int] = []
    asking = threading.Thread(target=lambda: got.append(registry.wait_servable("iris", None, 60).version))
    asking.start()
    gate.open.set()
    asking.join(60)
    assert got == [2]


def test_a_reload_serves_the_old_version_until_the_new_one_is_loaded(
    small_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first load nobody waits: version 1 answers while version 2 loads, and the worker stays ready."""
    registry = registry_for(small_repository)
    registry.reload(1)
    copy(small_repository, "iris", 2)
    gate = Gate(monkeypatch, closed=lambda key: True)
    reload = threading.Thread(target=registry.reload, args=(2,))
    reload.start()
    assert gate.entered.wait(60)
    assert registry.wait_servable("iris", None, 0.0).version == 1
    assert (registry.not_ready(), registry.missing(), registry.catalog.generation) == ("", [], 1)
    gate.open.set()
    reload.join(60)
    assert (registry.wait_servable("iris", None, 0.0).version, registry.catalog.generation) == (2, 2)


def test_a_reload_costs_nothing_for_models_in_which_nothing_changed(
    small_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new version of one of eight models: one load, policies for the two versions of this model, nothing else."""
    for name in "abcdefg":
        copy(small_repository, name)
    registry = registry_for(small_repository)
    registry.reload(1)
    before = registry.catalog
    copy(small_repository, "c", 2)
    counts: dict[str, int] = {}

    def count(owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            counts[name] = counts.get(name, 0) + 1
            return call(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    count(Loader, "load")
    count(integrity, "read_contract")
    count(registry_module, "make_policy")
    count(registry_module, "PrometheusBatchMetrics")
    registry.reload(2)
    assert counts == {"load": 1, "read_contract": 1, "make_policy": 1, "PrometheusBatchMetrics": 1}
    after = registry.catalog
    assert [name for name, model in after.models.items() if model is not before.models[name]] == ["c"]


def test_a_changed_model_file_is_adopted_without_a_load(
    small_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new alias or policy in model.toml changes how the loaded version is served; nothing is loaded again."""
    registry = registry_for(small_repository)
    registry.reload(1)
    servable = registry.catalog.servable("iris")
    gate = Gate(monkeypatch, closed=lambda key: False)
    model_toml_edits.set_alias(small_repository, "iris", "new", 1)
    with (small_repository / "iris" / "model.toml").open("a") as file:
        file.write("\n[batching]\nmax_batch_rows = 7\n")
    registry.reload(2)
    assert gate.order == []
    assert registry.catalog.servable("iris@new") is servable
    assert servable.policy.batching.max_batch_rows == 7


class Rounds:
    """A coordinator whose results come when the test lets them."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked: list[VersionFiles] = []

    def rounds(self, root: Path, policy: object, find: Callable[[], Any], asked: Any) -> Iterator[PreflightResults]:
        wanted = find()
        passed = {wanted[0]: PreflightResult(FailureKind.NONE)}
        yield PreflightResults(dict(passed), complete=False)
        assert self.go.wait(60)
        self.asked = list(asked())
        yield PreflightResults({**passed, wanted[1]: PreflightResult(FailureKind.CRASHED, "SIGSEGV")})


def test_versions_serve_as_their_preflights_pass(
    small_repository: Path, started: Callable[[Registry], threading.Thread]
) -> None:
    """What has passed serves while other preflights run, which learn what requests wait for; a failure is a reason."""
    copy(small_repository, "other")
    rounds = Rounds()
    registry = registry_for(small_repository)
    registry._loads._preflights = rounds  # type: ignore[assignment]
    started(registry)
    assert registry.wait_servable("iris", None, 60).state is State.READY
    waiting = threading.Thread(target=lambda: pytest.raises(ModelNotReady, registry.wait_servable, "other", None, 60))
    waiting.start()
    assert registry._reload is not None
    while not registry._reload.asked():
        waiting.join(0.01)
    rounds.go.set()
    waiting.join(60)
    assert [files.name for files in rounds.asked] == ["other"]
    broken = registry.catalog.find("other")
    assert (broken.state, broken.failure_kind, broken.reason) == (
        State.UNAVAILABLE, FailureKind.CRASHED, "SIGSEGV"
    )  # fmt: skip


def test_newest_and_small_versions_load_first(small_repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First come the versions that requests get without a number or by alias, and among them the small ones."""
    copy(small_repository, "iris", 2)
    copy(small_repository, "iris", 3)
    copy(small_repository, "tiny")
    (small_repository / "iris" / "3" / "notes.txt").write_text("x" * 100_000)
    model_toml_edits.set_alias(small_repository, "iris", "champion", 2)
    gate = Gate(monkeypatch, closed=lambda key: False)
    registry_for(small_repository).reload(1)
    assert gate.order == [("iris", 2), ("tiny", 1), ("iris", 3), ("iris", 1)]


def test_versions_without_a_preflight_are_refused(small_repository: Path) -> None:
    """If preflights cannot run at all, what has passed serves, and the others say why and are tried again."""
    copy(small_repository, "other")
    broken = Rounds()

    def rounds(root: Path, policy: object, find: Callable[[], Any], asked: Any) -> Iterator[PreflightResults]:
        yield PreflightResults({find()[0]: PreflightResult(FailureKind.NONE)}, complete=False)
        raise OSError("disk full")

    broken.rounds = rounds  # type: ignore[method-assign]
    registry = registry_for(small_repository)
    registry._loads._preflights = broken  # type: ignore[assignment]
    registry.reload(1)
    assert registry.failure == "OSError: disk full"
    assert registry.catalog.servable("iris").version == 1
    refused = registry.catalog.find("other")
    assert (refused.state, "disk full" in refused.reason) == (State.UNAVAILABLE, True)
    registry._loads._preflights = None
    registry.reload(2)
    assert registry.catalog.servable("other").version == 1


def test_a_replaced_version_leaves_memory(small_repository: Path) -> None:
    """After a reload nothing refers to a replaced estimator, also if models are excluded from garbage collections."""
    registry = registry_for(small_repository)
    gc.freeze()  # as a worker's master does
    try:
        registry.reload(1)
        excluded = gc.get_freeze_count()
        old = weakref.ref(registry.catalog.servable("iris").runtime)
        (small_repository / "iris" / "1" / "contract.json").touch()
        registry.reload(2)
        assert old() is None
        assert gc.get_freeze_count() <= excluded  # only the first load excludes
    finally:
        gc.unfreeze()


def test_an_environment_that_does_not_answer_holds_up_its_own_versions_only() -> None:
    """Versions of this process, and those of another environment, are loaded meanwhile, also if requests ask for it."""
    names = {"a": "dead", "b": "dead", "c": "alive", "d": "", "e": ""}
    pending = [PendingVersion(VersionFiles(name, 1, ()), None, True, place) for name, place in names.items()]
    answers, adopted = threading.Event(), []

    class Waiting(Loader):
        def load(self, pending: PendingVersion, *_: object) -> Servable:
            assert pending.environment != "dead" or answers.wait(60)
            return Servable(*pending.key)

    offload = make_offload(THREADS)
    reload = Reload(
        tuple(pending), Waiting(Path(), load().repository), offload, lambda each, fresh: adopted.append(fresh.name)
    )
    reload.ask(("a", 1))
    running = threading.Thread(target=reload.run, args=(None,))
    running.start()
    try:
        assert wait_until(lambda: len(adopted) == 3, 30), adopted
        assert sorted(adopted) == ["c", "d", "e"]
    finally:
        answers.set()
        running.join(60)
    assert sorted(adopted) == ["a", "b", "c", "d", "e"]
