"""What a worker serves now, as its requests see it: the catalog of the host's current generation."""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod

from tableside.errors import ModelNotReady
from tableside.process.generation_words import CURRENT, GenerationWords
from tableside.repository.model_toml import ModelConfig
from tableside.serving import readiness
from tableside.serving.catalog import EMPTY, Catalog, Model
from tableside.serving.lifecycle import State
from tableside.serving.reloading import Reload
from tableside.serving.repository_loads import Prepared, changed_models
from tableside.serving.servable import Servable

_POLL_S = 0.1
_CATCH_UP_S = 0.005


class Served(ABC):
    """Holds the current catalog. A switch replaces it in one assignment, so that no request sees parts of two."""

    def __init__(self) -> None:
        self.words = GenerationWords.alone().words
        """The words that the workers of a host share (`process.generation_words`)."""
        self.catalog: Catalog = EMPTY
        self._prepared: Prepared | None = None
        self._switched: list[tuple[Catalog, Prepared]] = []
        self._reload: Reload | None = None
        self._scanned = threading.Event()
        self._first_load = threading.Event()
        self._answer_from_s = math.inf
        self._adopt_lock = threading.Lock()

    @abstractmethod
    def _configure(self, servable: Servable, config: ModelConfig | None) -> None:
        """Let a version be served as a model.toml says."""

    @abstractmethod
    def _divide(self, model: Model) -> None:
        """Let the requests of a model be divided as its model.toml says."""

    @property
    def is_scanned(self) -> bool:
        """Whether the names of all models are known."""
        return self._scanned.is_set()

    @property
    def is_complete(self) -> bool:
        """Whether the first load is over: every version of the repository serves or is refused."""
        return self._first_load.is_set()

    @property
    def loaded(self) -> bool:
        """Whether requests may be answered: the first load is over, or lasts longer than FIRST_LOAD_WAIT_S."""
        return self._first_load.is_set() or time.monotonic() >= self._answer_from_s

    def wait_first(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` for the first load. Return whether requests may be answered."""
        give_up_at_s = time.monotonic() + timeout_s
        while not self.loaded and not self._first_load.wait(min(_POLL_S, timeout_s)):
            if time.monotonic() >= give_up_at_s:
                return False
        return True

    def wait_loaded(self, timeout_s: float) -> Catalog:
        """Return the catalog after the first load. Raises ModelNotReady if that takes longer than `timeout_s`."""
        if not self.wait_first(timeout_s):
            raise ModelNotReady("the worker is still loading its models")
        return self.current(timeout_s)

    def wait_servable(self, spec: str, version: str | None, timeout_s: float) -> Servable:
        """Do as `answering`, and return the servable only."""
        return self.answering(spec, version, timeout_s)[0]

    def answering(self, spec: str, version: str | None, timeout_s: float) -> tuple[Servable, Catalog]:
        """Return the servable of a spec (see `Catalog.find`), and the catalog that it is of.

        Waits up to `timeout_s` while it is LOADING. Raises ModelNotFound, or ModelNotReady with its state and reason.
        """
        if self._first_load.is_set():
            catalog = self.catalog
            if self.words[CURRENT] > catalog.generation:
                catalog = self.current(timeout_s)
            found = catalog.find(spec, version)
            if found.state is State.READY:
                return found, catalog
        give_up_at_s = time.monotonic() + timeout_s
        if not self._scanned.wait(timeout_s):
            raise ModelNotReady("the worker is still loading its models")
        while True:
            catalog = self.current(max(0.0, give_up_at_s - time.monotonic()))
            found = catalog.find(spec, version, can_wait=not self._first_load.is_set())
            left_s = give_up_at_s - time.monotonic()
            if found.state is not State.LOADING or left_s <= 0:
                return (found if found.state is State.READY else catalog.servable(spec, version)), catalog
            self._wait_for(found, left_s)

    def _wait_for(self, servable: Servable, timeout_s: float) -> None:
        """Ask for a version that is LOADING, and wait up to `timeout_s` for its end."""
        reload = self._reload
        ended = reload.ask((servable.name, servable.version)) if reload is not None else None
        (ended or threading.Event()).wait(timeout_s if ended is not None else min(_POLL_S, timeout_s))

    def missing(self) -> list[str]:
        """Return the versions that the first load has not loaded yet, as `name/version`."""
        return [] if self.is_complete else readiness.missing(self.catalog)

    @property
    def prepared(self) -> int:
        """The generation that was prepared and is not served yet; 0 if there is none."""
        return self._prepared.catalog.generation if self._prepared is not None else 0

    def current(self, timeout_s: float = 0.0) -> Catalog:
        """Return the catalog of the host's current generation; switch to it first if it has just become that.

        A worker that has not prepared it, because it has only just started, waits up to `timeout_s`. Raises
        ModelNotReady after that.
        """
        catalog = self.catalog
        if self.words[CURRENT] <= catalog.generation:
            return catalog
        give_up_at_s = time.monotonic() + timeout_s
        while self.words[CURRENT] > self.catalog.generation:
            if not self.switch():
                if time.monotonic() >= give_up_at_s:
                    raise ModelNotReady(f"this worker is still preparing generation {self.words[CURRENT]}")
                time.sleep(_CATCH_UP_S)
        return self.catalog

    def switch(self) -> bool:
        """Serve what was prepared, if it is the host's current generation. Return whether it is.

        It is one assignment; `report_switches` does the rest later.
        """
        prepared, before = self._prepared, self.catalog
        if prepared is None or prepared.catalog.generation != self.words[CURRENT]:
            return False
        with self._adopt_lock:
            if self._prepared is not prepared:  # another thread was faster
                return False
            self._prepared = None
            for _, model, was in changed_models(before, prepared.catalog):
                if was is not None and model is not None and was.config != model.config:
                    for servable in (each for each in model.servables if each in was.servables):
                        self._configure(servable, model.config)
                if model is not None:
                    self._divide(model)
            self.catalog = prepared.catalog
            self._switched.append((before, prepared))
        return True
