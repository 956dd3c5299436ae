"""The catalog: every model that a worker serves at one moment. It is immutable; a reload makes a new one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from tableside.errors import ModelNotFound, ModelNotReady
from tableside.repository.model_toml import ModelConfig
from tableside.repository.paths import DEFAULT, VERSION, split_spec
from tableside.serving import statement as statements
from tableside.serving.lifecycle import State
from tableside.serving.servable import Servable
from tableside.serving.statement import Statement


@dataclass(frozen=True)
class Model:
    """The versions of one model, lowest first, and the aliases that answer now.

    reason: why model.toml could not be read; empty if it could. config: the content of the model.toml in force; None if
    there is none, and the versions then keep the policy that they have.
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


@dataclass(frozen=True)
class Catalog:
    """Models by name, as of one generation. Iterating gives every servable.

    statement: what it was made from.
    """

    generation: int
    models: Mapping[str, Model]
    statement: Statement = statements.EMPTY

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
