"""Follows the generations of the host in one worker: prepares what is proposed, and serves what is switched to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec

from tableside.errors import ContractBroken, ModelNotReady
from tableside.process.generation_words import GenerationWords
from tableside.serving import statement
from tableside.serving.generations import FOLDER, Generations
from tableside.serving.registry import Registry
from tableside.serving.repository_watch import RepositoryWatch
from tableside.serving.statement import Key, Refusal, Statement
from tableside.serving.worker_refusals import WorkerRefusals, refusals_file
from tableside.settings import Settings
from tableside.telemetry import logs

LOOK_S = 0.025
"""How often a worker looks at the words. That costs a microsecond."""
FIRST_WAIT_S = 30.0
"""How long a worker that starts waits for another one that writes the first generation."""
RETRY_S = 1.0
log = logs.get_logger("generations")


class Follower:
    """Loads the models of one worker, and follows the host's generations in a thread."""

    def __init__(self, registry: Registry, settings: Settings, pid: int, in_slot: bool = True) -> None:
        """in_slot: whether the worker holds the slot `registry.worker_number`, so that switches wait for it."""
        self._registry = registry
        self._settings = settings
        self._pid = pid
        self._slot = registry.worker_number if in_slot else -1
        self._generations: Generations | None = None
        self._handled = 0
        self._stop = threading.Event()
        self._look_at_s = 0.0
        self._retry_at_s = 0.0

    def start(self) -> threading.Thread:
        """Start the thread and return it."""
        thread = threading.Thread(target=self._follow, name="generations", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """End the thread at its next look, and write what was counted of divided traffic."""
        self._stop.set()
        self._registry.traffic.stop()

    def _follow(self) -> None:
        try:
            self._generations = Generations.open(self._settings.run_dir)
        except OSError as problem:
            log.error("generations_not_followed", reason=f"{problem.filename}: {problem.strerror}")
            self._generations = Generations(self._settings.run_dir / FOLDER, GenerationWords.alone())
            self._slot = -1
        self._registry.words = self._generations.words.words
        self._begin(self._generations)
        while not self._stop.wait(LOOK_S):
            try:
                self._step(self._generations)
            except Exception as problem:  # noqa: BLE001 - without this thread the worker would never switch again
                log.error("follow_failed", reason=f"{type(problem).__name__}: {problem}")
                self._retry_at_s = time.monotonic() + RETRY_S

    def _begin(self, generations: Generations) -> None:
        """Load the generation that the host serves, and what it switches to meanwhile."""
        if self._slot >= 0:
            generations.words.begin(self._slot)
        try:
            self._registry.load(self._first(generations))
        except (OSError, ContractBroken, ModelNotReady) as problem:
            self._registry.failed(problem)
        with suppress(Exception):  # `_step` tries it again, and reports it
            self._catch_up(generations)
        self._registry.complete()
        self._say_served(generations)

    def _first(self, generations: Generations) -> Statement:
        """The statement that the host serves. The first worker of a host without one makes it from the repository."""
        if (found := self._served(generations)) is not None:
            return found
        with generations.switch_lock(FIRST_WAIT_S):
            if (found := self._served(generations)) is not None:
                return found
            wanted = generations.propose(self._registry.read_repository(statement.EMPTY, "start of a worker"))
            generations.commit(wanted.generation)
            return wanted

    def _served(self, generations: Generations) -> Statement | None:
        """The statement that the host serves; None without one, and if it is of another repository."""
        try:
            found = generations.current()
        except ContractBroken:  # lost, or of another release
            return None
        return found if found.repository == str(self._settings.repository_path) else None

    def _step(self, generations: Generations) -> None:
        words, now_s = generations.words, time.monotonic()
        if now_s < self._retry_at_s:
            return
        self._catch_up(generations)
        proposed = words.proposed
        if proposed > max(words.current, self._handled):
            self._handled = proposed
            self._prepare(generations, proposed)
            self._catch_up(generations)
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + self._settings.repository.poll_interval_ms / 1000
            self._registry.look_around()
            if self._registry.prepared and not generations.is_switching and words.current < self._registry.prepared:
                self._registry.forget_prepared()  # its coordinator has ended

    def _catch_up(self, generations: Generations) -> None:
        """Serve the current generation. A worker that has not prepared it does so now; its requests wait."""
        registry = self._registry
        while generations.words.current > registry.catalog.generation:
            if not registry.switch():
                registry.prepare(generations.current())
        if registry.report_switches() or registry.draining:
            self._say_served(generations)

    def _say_served(self, generations: Generations) -> None:
        if self._slot >= 0:
            serves = 0 if self._registry.draining else self._registry.catalog.generation
            generations.words.serves(self._slot, serves)

    def _prepare(self, generations: Generations, number: int) -> None:
        """Prepare a proposed generation, and answer for it."""
        try:
            wanted = generations.read(number)
        except ContractBroken:  # given up
            self._registry.forget_prepared()
            return
        refused: Mapping[Key, Refusal] = {}
        failure = ""
        try:
            refused = self._registry.prepare(wanted)
        except Exception as problem:  # noqa: BLE001 - whatever it is, it is this worker's answer
            failure = f"{type(problem).__name__}: {problem}"
            log.error("prepare_failed", generation=number, reason=failure)
        if self._slot < 0:
            return
        if refused or failure:
            self._write(generations, WorkerRefusals(
                number, self._pid, {f"{name}/{version}": why for (name, version), why in refused.items()}, failure,
            ))  # fmt: skip
        generations.words.prepared(self._slot, number, bool(refused or failure))

    def _write(self, generations: Generations, refusals: WorkerRefusals) -> None:
        target = refusals_file(generations.folder, self._slot)
        temporary = target.with_suffix(".tmp")
        with suppress(OSError):  # on a full disk the coordinator knows that it is refused, and not why
            temporary.write_bytes(msgspec.json.encode(refusals))
            temporary.replace(target)


def follow(
    registry: Registry, settings: Settings, acknowledge: Callable[[], None], in_slot: bool, pid: int
) -> Follower:
    """Start to load models and to follow generations. acknowledge: called after each change of the catalog."""
    registry.on_change(acknowledge)
    follower = Follower(registry, settings, pid, in_slot)
    follower.start()
    RepositoryWatch(settings, lambda: registry.is_complete).start()
    return follower
