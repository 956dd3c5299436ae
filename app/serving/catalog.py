"""The catalog: every model that a worker serves at one moment. It is immutable; a reload makes a new one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from tableside.errors import ModelNotFound, ModelNotReady
from tableside.repository.model_toml import ModelConfig
from tableside.repository.paths import DEFAULT, VERSION, split_spec
from tableside.serving.lifecycle import State
from tableside.serving.servable import Servable


@dataclass(frozen=True)
class Model:
    """The versions of one model, lowest first, and the aliases that answer now (`aliases_that_moved`).

    reason: why model.toml could not be read; empty if it could. config: the content of model.toml; None if it could not
    be read, and the versions then keep the policy that they have.
    """

    name: str
    servables: tuple[Servable, ...]
    aliases: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""
    config: ModelConfig | None = None

    def pick(self, wanted: str | None, can_wait: bool = False) -> Servable:
        """Return the servable of a version number or alias, whatever its state.

        None: the version of the alias `default`; without one, that of `latest`. `latest`: the highest version that is
        READY, or the highest one if none is. can_wait: a version that is about to be loaded counts as READY, so that a
        new worker answers with the same version as the others. Raises ModelNotFound if the model has no such version or
        alias.
        """
        if wanted is None and DEFAULT in self.aliases:
            wanted = DEFAULT
        if wanted is None or wanted == "latest":
            for servable in reversed(self.servables):
                if servable.state is State.READY or (can_wait and servable.is_next):
                    return servable
            if self.servables:
                return self.servables[-1]
            raise ModelNotFound(f"model {self.name!r} has no version; publish one with `tableside publish`")
        number = self.aliases.get(wanted)
        chosen = number if number is not None else int(wanted) if VERSION.match(wanted) else 0
        for servable in self.servables:
            if servable.version == chosen:
                return servable
        if number is not None:
            versions = ", ".join(str(servable.version) for servable in self.servables)
            raise ModelNotFound(
                f"alias {wanted!r} of model {self.name!r} points at version {number}, which does not exist; "
                f"the model has versions {versions or 'none'}"
            )
        known = ", ".join([*(str(servable.version) for servable in self.servables), *self.aliases])
        raise ModelNotFound(f"model {self.name!r} has no version or alias {wanted!r}; it has {known or 'none'}")


def aliases_that_moved(
    wanted: Mapping[str, int], before: Mapping[str, int], servables: Iterable[Servable]
) -> dict[str, int]:
    """Return the aliases that answer now: an alias moves only to a version that is READY.

    wanted: the aliases of model.toml. before: those that answered until now. An alias stays at the version that it
    named, while that one is READY, until its new target is; a new `default` waits for its target too. In a worker that
    has just started nothing is READY, and requests wait for the targets as they are written.
    """
    ready = {servable.version for servable in servables if servable.state is State.READY}
    found: dict[str, int] = {}
    for alias, target in wanted.items():
        former = before.get(alias)
        if target in ready or former == target:
            found[alias] = target
        elif former in ready and former is not None:
            found[alias] = former
        elif former is not None or alias != DEFAULT or not ready:
            found[alias] = target
    return found


def without_surplus(model: Model) -> Model:
    """Return the model without the versions that were kept only until others could answer.

    What model.toml selects stays, and so does what an alias names and what answers without a version.
    """
    if model.config is None or not model.config.enabled:
        return model
    numbers = [servable.version for servable in model.servables]
    keep = {*model.config.wanted(numbers), *model.aliases.values(), *unnamed(model)}
    if keep.issuperset(numbers):
        return model
    return replace(model, servables=tuple(each for each in model.servables if each.version in keep))


def unnamed(model: Model) -> list[int]:
    """Return the version that answers without a version where no `default` says which: the highest that is READY."""
    ready = [servable.version for servable in model.servables if servable.state is State.READY]
    return ready[-1:] if DEFAULT not in model.aliases else []


@dataclass(frozen=True)
class Catalog:
    """Models by name, as of one generation. Iterating gives every servable."""

    generation: int
    models: Mapping[str, Model]

    def __iter__(self) -> Iterator[Servable]:
        for model in self.models.values():
            yield from model.servables

    def answering(self) -> list[Servable]:
        """Return what answers without a version, for each model that can, sorted by the model's name."""
        found = []
        for _, model in sorted(self.models.items()):
            with suppress(ModelNotFound):  # `default` names a version that does not exist
                found.append(model.pick(None))
        return [servable for servable in found if servable.state is State.READY]

    def waiting_aliases(self) -> Iterator[tuple[str, str, int, int | None]]:
        """Yield model, alias, wanted version and answering version of each alias whose target is not READY.

        The answering version is None for `default` where it names nothing yet.
        """
        for name, model in self.models.items():
            for alias, target in (model.config.aliases if model.config is not None else {}).items():
                if model.aliases.get(alias) != target:
                    yield name, alias, target, model.aliases.get(alias)

    def model(self, name: str) -> Model:
        """Return the model of that name. Raises ModelNotFound with the names that exist (at most 20)."""
        model = self.models.get(name)
        if model is None:
            raise ModelNotFound(f"no model {name[:100]!r}; there is {', '.join(sorted(self.models)[:20]) or 'none'}")
        return model

    def find(self, spec: str, version: str | None = None, can_wait: bool = False) -> Servable:
        """Return the servable of `name`, `name@alias` or `name/version`, whatever its state. Raises ModelNotFound.

        can_wait: see `Model.pick`.
        """
        model = self.models.get(spec)  # a model's name holds neither `@` nor `/`, so a hit is a plain name
        if model is not None:
            return model.pick(version, can_wait)
        name, inner = (spec, None) if version is not None else split_spec(spec)
        return self.model(name).pick(version if version is not None else inner, can_wait)

    def servable(self, spec: str, version: str | None = None) -> Servable:
        """Return the servable of a spec if it can answer.

        Raises ModelNotFound like `find`; ModelNotReady with its state and reason if it is not READY.
        """
        found = self.find(spec, version)
        if found.state is not State.READY:
            reason = f": {found.reason}" if found.reason else ""
            raise ModelNotReady(f"model {found.name}/{found.version} is {found.state}{reason}")
        return found


EMPTY = Catalog(0, {})
"""The catalog of a worker before its first load."""
