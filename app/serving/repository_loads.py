"""Loads what a statement asks for: the first time version by version into the catalog, later beside what is served."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from tableside.errors import FailureKind
from tableside.model_process.environment_pools import Environments
from tableside.preflight.coordinator import PreflightCoordinator
from tableside.preflight.results import PreflightResults
from tableside.process.offload import Offload
from tableside.serving import desired
from tableside.serving.catalog import Catalog, Model
from tableside.serving.lifecycle import State
from tableside.serving.loader import find_servable, loader_of, refusal_of, with_servable
from tableside.serving.reloading import Adopt, Reload
from tableside.serving.scan import PendingVersion, Scan, scan
from tableside.serving.servable import Servable
from tableside.serving.statement import Key, Refusal, Statement
from tableside.serving.worker_refusals import still_serving
from tableside.settings import Settings


@dataclass(frozen=True)
class Prepared:
    """A catalog that was prepared beside the one that is served.

    problems: what is wrong with versions that go on. refused: the versions that cannot be served here.
    """

    catalog: Catalog
    problems: Mapping[Key, Refusal] = field(default_factory=dict)
    refused: Mapping[Key, Refusal] = field(default_factory=dict)


class RepositoryLoads:
    """Scans and loads of one worker.

    preflights: runs the preflights of new versions; None skips them. count: is given each version that was loaded, or
    that has a problem.
    """

    def __init__(
        self, settings: Settings, loading: Offload, preflights: PreflightCoordinator | None,
        environments: Environments, count: Callable[[Servable], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._count = count
        self._settings = settings
        self._loading = loading
        self._preflights = preflights
        self._environments = environments

    def read(self, before: Statement, refused: Mapping[Key, Refusal]) -> Statement:
        """Return what the repository asks for now (`desired.read`)."""
        return self._loading.call(partial(desired.read, self._settings.repository_path, before, refused))

    def scan(self, statement: Statement, before: Catalog) -> Scan:
        """Compare a statement with a catalog. Raises OSError if the repository cannot be read."""
        settings = self._settings
        return self._loading.call(
            partial(scan, settings.repository_path, settings.repository, before, self._environments, statement)
        )

    def begin(self, found: Scan, adopt: Adopt) -> tuple[Reload, Iterator[PreflightResults] | None]:
        """Return the loads of a scan and the results of their preflights as they come, for `Reload.run`."""
        settings, check = self._settings, self._preflights

        def counted(pending: PendingVersion, fresh: Servable) -> None:
            self._count(fresh)
            adopt(pending, fresh)

        reload = Reload(found.pending, loader_of(settings, self._environments), self._loading, counted)
        files = [each.files for each in found.pending]
        if check is None:
            return reload, None
        return reload, check.rounds(settings.repository_path, settings.repository, lambda: files, reload.asked)

    def prepare(self, statement: Statement, base: Catalog, configure: Callable[[Servable, Model], None]) -> Prepared:
        """Load what a statement needs and `base` has not, and replay its golden rows.

        configure: is given each new version with its model. Raises OSError if the repository cannot be read, and what
        goes wrong with preflights.
        """
        found = self.scan(statement, base)
        models, problems, refused = dict(found.models), dict(found.problems), unread_models(found, statement)

        def keep(pending: PendingVersion, fresh: Servable) -> None:
            known = find_servable(models, pending)
            if fresh.state is not State.READY:
                refused[pending.key] = refusal_of(fresh)
                if known.state is State.READY and fresh.failure_kind is not FailureKind.CONSENT:
                    problems[pending.key] = Refusal(refused[pending.key].kind, still_serving(fresh.reason))
                    return
            model = models[fresh.name] = with_servable(models[fresh.name], fresh)
            configure(fresh, model)

        reload, rounds = self.begin(found, keep)
        reload.run(rounds)
        return Prepared(Catalog(statement.generation, models, statement), problems, refused)


def unread_models(found: Scan, statement: Statement) -> dict[Key, Refusal]:
    """Return the versions of models whose model.toml this release cannot read, as another release wrote it."""
    return {
        (name, version): Refusal(FailureKind.OTHER, model.reason)
        for name, model in found.models.items()
        if model.config is None and model.reason
        for version in statement.models[name].versions
    }


def with_prepared(served: Catalog, prepared: Prepared | None) -> Catalog:
    """Return the catalog that is served, with what was loaded for a generation that is not: it need not load again."""
    if prepared is None:
        return served
    models = dict(served.models)
    for name, model in prepared.catalog.models.items():
        known = models.get(name)
        if known is model:
            continue
        versions = {each.version: each for each in known.servables} if known is not None else {}
        versions |= {each.version: each for each in model.servables if each.state is State.READY}
        models[name] = replace(known or model, servables=tuple(versions[number] for number in sorted(versions)))
    return Catalog(served.generation, models, served.statement)


def changed_models(before: Catalog, now: Catalog) -> Iterator[tuple[str, Model | None, Model | None]]:
    """Yield the name of each model in which two catalogs differ, the model now, and as it was; None where it is not."""
    for name in now.models.keys() | before.models.keys():
        model, was = now.models.get(name), before.models.get(name)
        if model is not was:
            yield name, model, was
