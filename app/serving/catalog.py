"""Everything a worker serves at one moment. Never changed: a reload makes the next one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tableside.errors import ModelNotFound, ModelNotReady
from tableside.repository.model_toml import ModelConfig
from tableside.repository.paths import split_spec
from tableside.serving.lifecycle import State
from tableside.serving.servable import Servable


@dataclass(frozen=True)
class Model:
    """A model's versions, lowest first, and its aliases. `reason`: why model.toml could not be read, if so.

    config: what its model.toml says; None: it could not be read, and the versions keep the policy they have.
    """

    name: str
    servables: tuple[Servable, ...]
    aliases: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""
    config: ModelConfig | None = None

    def pick(self, wanted: str | None) -> Servable:
        """The servable a version or alias means; without one the highest that is ready. Raises ModelNotFound."""
        if wanted is None or wanted == "latest":
            for servable in reversed(self.servables):
                if servable.state is State.READY:
                    return servable
            if self.servables:
                return self.servables[-1]
            raise ModelNotFound(f"model {self.name!r} has no version")
        number = self.aliases.get(wanted)
        if number is not None and number not in {servable.version for servable in self.servables}:
            raise ModelNotFound(
                f"alias {wanted!r} of model {self.name!r} points at version {number}, which is not there"
            )
        for servable in self.servables:
            if servable.version == number or str(servable.version) == wanted:
                return servable
        known = ", ".join([*(str(servable.version) for servable in self.servables), *self.aliases])
        raise ModelNotFound(f"model {self.name!r} has no version or alias {wanted!r}; it has {known or 'none'}")


@dataclass(frozen=True)
class Catalog:
    """Models by name, of one generation."""

    generation: int
    models: Mapping[str, Model]

    def __iter__(self) -> Iterator[Servable]:
        for model in self.models.values():
            yield from model.servables

    def model(self, name: str) -> Model:
        """The model of that name. Raises ModelNotFound."""
        model = self.models.get(name)
        if model is None:
            raise ModelNotFound(f"no model {name[:100]!r}; there is {', '.join(sorted(self.models)[:20]) or 'none'}")
        return model

    def find(self, spec: str, version: str | None = None) -> Servable:
        """The servable `name`, `name@alias` or `name/version` means, whatever its state. Raises ModelNotFound."""
        model = self.models.get(spec)  # no name holds a mark of `split_spec`: what is found is a plain name
        if model is not None:
            return model.pick(version)
        name, inner = (spec, None) if version is not None else split_spec(spec)
        return self.model(name).pick(version if version is not None else inner)

    def servable(self, spec: str, version: str | None = None) -> Servable:
        """Like `find`, and able to answer. Raises ModelNotReady with its state and reason."""
        found = self.find(spec, version)
        if found.state is not State.READY:
            reason = f": {found.reason}" if found.reason else ""
            raise ModelNotReady(f"model {found.name}/{found.version} is {found.state}{reason}")
        return found


EMPTY = Catalog(0, {})
