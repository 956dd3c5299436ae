"""All workers of a host switch to a generation, or none does. The workers are threads with a slot of their own each."""

from __future__ import annotations

import gc
import stat
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import pytest
import structlog
from click.testing import CliRunner, Result

from tableside.cli import main
from tableside.control_errors import GenerationChanged
from tableside.errors import FailureKind
from tableside.process import worker_slots
from tableside.process.generation_words import GenerationWords
from tableside.process.worker_slots import WorkerSlot
from tableside.repository import release_edits
from tableside.serving import changes, desired, statement, switching
from tableside.serving.following import Follower
from tableside.serving.generations import FOLDER, Generations
from tableside.serving.lifecycle import State
from tableside.serving.registry import Registry
from tableside.serving.repository_watch import RepositoryWatch
from tableside.serving.statement import Refusal
from tableside.serving.worker_status import start_worker
from tableside.settings import Settings
from tableside.switch_errors import SwitchRefused
from tests.skewed_environment import flip_a_bit
from tests.unit.test_reloading import Gate, copy, registry_for
from tests.waiting import wait_until


@dataclass
class Worker:
    """A worker of the host."""

    registry: Registry
    slot: WorkerSlot
    follower: Follower

    @property
    def unnamed(self) -> int:
        """The version that answers a request without one."""
        return self.registry.wait_servable("iris", None, 30.0).version

    def end(self) -> None:
        """End as by SIGKILL: the slot is free, and nothing was said."""
        self.follower.stop()
        self.slot.release()


@dataclass
class Host:
    """A host with two workers."""

    settings: Settings
    root: Path
    workers: list[Worker]

    def start(self) -> Worker:
        """Start a worker and wait for its first load."""
        registry = registry_for(self.root)
        slot = worker_slots.acquire(self.settings.run_dir / "worker_slots")
        worker = Worker(registry, slot, start_worker(registry, slot, self.settings, "web"))
        self.workers.append(worker)
        assert wait_until(lambda: registry.is_complete, 30)
        assert wait_until(lambda: words_of(self).generation_of(slot.number), 30)
        return worker

    def promote(self, version: int, **more: object) -> switching.Outcome:
        edit = partial(release_edits.move_alias, self.root, "iris", "default", version)
        return changes.apply(self.settings, "iris", edit, "promote", [("iris", version)], **more).outcome  # type: ignore[arg-type]

    @property
    def unnamed(self) -> list[int]:
        return [worker.unnamed for worker in self.workers]

    @property
    def toml(self) -> str:
        return (self.root / "iris" / "model.toml").read_text()


def words_of(host: Host) -> GenerationWords:
    return GenerationWords.open(host.settings.run_dir / FOLDER)


@pytest.fixture
def host(small_repository: Path) -> Iterator[Host]:
    (small_repository / "iris" / "model.toml").write_text("[aliases] # mine\ndefault = 1\n")
    copy(small_repository, "iris", 2)
    settings = without_watch(registry_for(small_repository))
    made = Host(settings, small_repository, [])
    made.start()
    made.start()
    yield made
    for worker in made.workers:
        worker.end()


def without_watch(registry: Registry) -> Settings:
    found = registry._settings
    return msgspec.structs.replace(found, repository=msgspec.structs.replace(found.repository, watch_interval_s=0.0))


def test_a_change_reaches_all_workers_at_once(host: Host) -> None:
    """Both answer with the new version when the call returns, and say of which generation; the old one stays warm."""
    before = host.workers[0].registry.answering("iris", None, 1.0)[1].generation
    kept = host.workers[0].registry.wait_servable("iris", "1", 1.0)
    outcome = host.promote(2)
    assert (outcome.changed, outcome.workers, host.unnamed) == (("iris",), 2, [2, 2])
    assert [worker.registry.answering("iris", None, 1.0)[1].generation for worker in host.workers] == [before + 1] * 2
    assert "# mine" in host.toml
    host.promote(1)
    assert host.workers[0].registry.wait_servable("iris", None, 1.0) is kept, "nothing was loaded again"


@pytest.fixture
def command(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Run a command beside the workers of the host. It may set up the logging of its process."""
    monkeypatch.setenv("TABLESIDE__SERVER__RUN_DIR", str(host.settings.run_dir))
    monkeypatch.setenv("TABLESIDE__REPOSITORY__PATH", "elsewhere")
    logging = structlog.get_config()
    yield lambda *words: CliRunner().invoke(main, list(words))
    structlog.configure(**logging)


def test_a_command_makes_one_generation(host: Host, command: Callable[..., Result]) -> None:
    """A command on the host switches as the admin API does. Its line is in the log of the stack, not in its output."""
    log = host.settings.run_dir / "log" / "commands.log"
    log.parent.mkdir(exist_ok=True)
    before = words_of(host).current
    done = command("promote", "iris/2")
    assert done.exit_code == 0, done.output
    assert done.stdout == (
        "iris: default names 2 now, and named 1 before. Requests without a version get iris/2. "
        "Back: `tableside rollback iris` (2 workers)\n"
    )
    assert words_of(host).current == before + 1
    assert host.unnamed == [2, 2]
    line = msgspec.json.decode(log.read_bytes())
    assert (line["event"], line["reason"]) == ("generation_switched", "iris@default = 2, by a command")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert Generations.open(host.settings.run_dir).current().repository == str(host.root)


def test_a_command_that_a_worker_refuses_changes_nothing(host: Host, command: Callable[..., Result]) -> None:
    """The exit status is 1, with the reason of the workers; the file and what is served are as before."""
    copy(host.root, "iris", 3)
    flip_a_bit(host.root / "iris" / "3")
    before = host.toml
    for words in (("promote", "iris/3"), ("shadow", "iris/3", "--percent", "5"), ("alias", "iris", "next", "3")):
        done = command(*words)
        assert (done.exit_code, done.stdout) == (1, ""), done.output
        assert "tableside: not changed: iris/3 cannot be served; nothing has changed: worker " in done.stderr
    assert host.toml == before
    assert host.unnamed == [1, 1]


def test_a_generation_says_which_stopped_models_start_again(host: Host) -> None:
    """The models that it changes; all of them after a reload; none where nothing of theirs is new."""
    host.promote(2)
    assert host.workers[0].registry.catalog.statement.starts == ("iris",)
    switching.switch(host.settings, "reload", retry=None, force=True)
    assert host.workers[0].registry.catalog.statement.starts is None
    switching.switch(host.settings, "a look", force=True)
    assert host.workers[0].registry.catalog.statement.starts == ()


def test_nothing_new_is_no_generation(host: Host) -> None:
    """A switch to what is served already makes none, unless it is forced."""
    before = words_of(host).current
    assert switching.switch(host.settings, "again").generation == before
    assert switching.switch(host.settings, "again", force=True).generation == before + 1


def test_one_refusal_and_nobody_switches(host: Host) -> None:
    """The reason of each worker comes back, the file is as it was, and the version is shown as refused."""
    before = host.toml
    copy(host.root, "iris", 3)
    flip_a_bit(host.root / "iris" / "3")
    with pytest.raises(
        SwitchRefused, match=r"iris/3 cannot be served; nothing has changed: worker \d+.*damaged"
    ) as caught:
        host.promote(3)
    assert (len(caught.value.reasons), host.toml, host.unnamed) == (2, before, [1, 1])
    for worker in host.workers:
        found = worker.registry.current().find("iris", "3")
        assert (found.state, found.failure_kind) == (State.UNAVAILABLE, FailureKind.DAMAGED)


def test_a_broken_version_holds_up_no_other_change(host: Host) -> None:
    """A version that nobody asked for by name is left out by all, with the reason, and the rest is served."""
    flip_a_bit(copy(host.root, "iris", 3))
    copy(host.root, "other")
    outcome = switching.switch(host.settings, "reload", retry=None)
    assert list(outcome.refused) == ["iris/3"]
    for worker in host.workers:
        assert worker.registry.wait_servable("other", None, 30).version == 1
    assert host.promote(2).refused.keys() == {"iris/3"}


def test_what_one_worker_could_not_load_is_served_by_the_others(host: Host) -> None:
    """A failure of one worker, such as a lack of memory, is no reason for all to leave the version out."""
    slot = worker_slots.acquire(host.settings.run_dir / "worker_slots")
    failed = {"name": "iris", "version": 1, "state": "UNAVAILABLE", "failure_kind": "other", "reason": "no memory"}
    slot.write_status({"pid": 424242, "models": [failed]})
    copy(host.root, "other")
    assert switching.switch(host.settings, "another model").refused == {}
    for worker in host.workers:
        assert worker.registry.wait_servable("iris", "1", 30.0).version == 1
    slot.release()


def test_a_hung_worker_is_a_timeout(host: Host, hung_worker: WorkerSlot) -> None:
    """It is named, and nobody switches; when it has ended, the same change is made."""
    with pytest.raises(
        SwitchRefused, match=r"not prepared in time; nothing has changed: worker \d+: has not prepared it"
    ):
        host.promote(2, timeout_s=0.3)
    assert host.unnamed == [1, 1]
    assert wait_until(lambda: not any(worker.registry.prepared for worker in host.workers), 30), "it was released"
    hung_worker.release()
    assert host.promote(2).workers == 2
    assert host.unnamed == [2, 2]


def test_a_worker_that_ends_meanwhile_is_left_out(host: Host, hung_worker: WorkerSlot) -> None:
    """The switch comes as soon as the others are prepared."""
    threading.Timer(0.2, hung_worker.release).start()
    assert host.promote(2).generation == words_of(host).current
    assert host.unnamed == [2, 2]


def test_a_coordinator_that_ends_changes_nothing(host: Host) -> None:
    """Its proposal is prepared and never served; the workers release it, and the next change is made."""
    made = Generations.open(host.settings.run_dir)
    copy(host.root, "other")
    with made.switch_lock(1.0):
        proposed = made.propose(desired.read(host.root, made.current()))
        assert wait_until(lambda: all(each.registry.prepared == proposed.generation for each in host.workers), 30)
    assert wait_until(lambda: not any(each.registry.prepared for each in host.workers), 30)
    assert "other" not in host.workers[0].registry.catalog.models
    assert host.promote(2).generation > proposed.generation


def test_a_worker_that_is_born_meanwhile_serves_what_the_host_serves(host: Host) -> None:
    """It reads the statement in force, not the files, which somebody has edited badly since."""
    host.promote(2)
    (host.root / "iris" / "model.toml").write_text("aliases = 3\n")
    assert host.start().unnamed == 2
    assert host.unnamed == [2, 2, 2]
    switching.switch(host.settings, "reload", retry=None)
    assert host.unnamed == [2, 2, 2]
    found = host.workers[2].registry.catalog.find("iris", "2")
    assert "iris/model.toml: line 1" in found.reason
    assert "still serving what was loaded before" in found.reason


def test_a_new_worker_follows_what_was_switched_during_its_load(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to it wait; they never get the older generation."""
    gate = Gate(monkeypatch, closed=lambda key: key == ("iris", 1))
    born = threading.Thread(target=host.start)
    born.start()
    assert gate.entered.wait(30)
    assert host.promote(2).workers == 2
    late = registry_of_last(host)
    got: list[int] = []
    asking = threading.Thread(target=lambda: got.append(late.wait_servable("iris", None, 60).version))
    asking.start()
    gate.open.set()
    born.join(60)
    asking.join(60)
    assert (got, host.unnamed) == ([2], [2, 2, 2])


def registry_of_last(host: Host) -> Registry:
    assert wait_until(lambda: len(host.workers) == 3, 30)
    return host.workers[2].registry


def test_two_operators_do_not_overwrite_each_other(host: Host) -> None:
    """A change that was made for an older generation is refused before anything is written."""
    seen = words_of(host).current
    host.promote(2, if_generation=seen)
    before = host.toml
    with pytest.raises(GenerationChanged):
        host.promote(1, if_generation=seen)
    assert (host.toml, host.unnamed) == (before, [2, 2])


def test_what_is_switched_away_is_released(host: Host) -> None:
    """The estimator of a version that left goes without the garbage collector, which does not look at old objects."""
    left = weakref.ref(host.workers[0].registry.wait_servable("iris", "2", 1.0).runtime)
    edit = partial(release_edits.retire, host.root, "iris", 2)
    gc.disable()
    try:
        changes.apply(host.settings, "iris", edit, "retire")
        assert wait_until(lambda: left() is None, 30)
    finally:
        gc.enable()


def watch_of(host: Host) -> RepositoryWatch:
    return RepositoryWatch(host.settings, lambda: True)


def test_the_watch_takes_a_hand_edit(host: Host) -> None:
    """After two looks that see the same. A bad edit leaves what is served, and is named with file, line and key."""
    watch = watch_of(host)
    while not watch.look():
        pass
    (host.root / "iris" / "model.toml").write_text("[aliases]\ndefault = 2\n")
    assert not watch.look()
    assert watch.look()
    assert host.unnamed == [2, 2]
    generation = words_of(host).current
    assert watch.look()
    assert words_of(host).current == generation, "nothing has changed since"
    (host.root / "iris" / "model.toml").write_text("[aliases]\ndefault = 2\n[cash]\n")
    while not watch.look():
        pass
    model = host.workers[0].registry.current().model("iris")
    assert "iris/model.toml: line 3: `cash` is no key. Did you mean 'cache'?" in model.reason
    assert host.unnamed == [2, 2]


def test_the_watch_takes_a_copied_version_when_it_is_whole(host: Host) -> None:
    """A copy without its artifact is refused with the reason, and served when the artifact has come."""
    watch = watch_of(host)
    while not watch.look():
        pass
    (host.root / "iris" / "model.toml").write_text("")
    folder = copy(host.root, "iris", 3)
    artifact = (folder / "model.skops").read_bytes()
    (folder / "model.skops").unlink()
    while not watch.look():
        pass
    assert host.unnamed == [2, 2]
    assert ("iris", 3) in host.workers[0].registry.current().statement.refusals
    (folder / "model.skops").write_bytes(artifact)
    while not watch.look():
        pass
    assert host.unnamed == [3, 3]


def test_only_one_worker_watches(host: Host) -> None:
    """The others take its place when it has ended."""
    one, other = watch_of(host), watch_of(host)
    assert one._is_watcher()
    assert not other._is_watcher()
    one.release()
    assert other._is_watcher()
    other.release()


def test_what_is_refused_is_kept_out_until_it_is_tried_again(host: Host) -> None:
    """A statement keeps refusals of models that a change is not about."""
    before = statement.EMPTY
    why = Refusal(FailureKind.OTHER, "no")
    first = desired.read(host.root, before, {("iris", 2): why})
    assert first.models["iris"].refused == {2: why}
    assert statement.changed(first, desired.read(host.root, first, first.refusals)) == []
    assert statement.changed(first, desired.read(host.root, first)) == ["iris"]
