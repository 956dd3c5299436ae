"""Which version answers under each name that clients use, and the refusal to exchange it for one that breaks them.

Clients name an alias, or no version. A publish and an edit of model.toml may put another version behind such a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from tableside.contracts.schema import Contract
from tableside.errors import ContractBroken
from tableside.repository import compatibility, integrity, model_toml, paths
from tableside.repository.compatibility import Difference
from tableside.repository.model_toml import ModelConfig
from tableside.repository.paths import DEFAULT
from tableside.repository.refusals import ReleaseRefused

UNNAMED = ""
"""Stands for the requests that name neither a version nor an alias."""


class Move(msgspec.Struct, frozen=True):
    """Requests that get another version. label: their alias, or UNNAMED. differences: what changes for clients."""

    label: str
    old: int
    new: int
    differences: tuple[Difference, ...]

    @property
    def requests(self) -> str:
        """The requests in words."""
        return f"requests to the alias {self.label}" if self.label else "requests without a version"


def answering(root: Path, name: str, config: ModelConfig, published: Iterable[int]) -> int | None:
    """Return the version that answers requests without one: the target of `default`, else the highest to be served.

    It is what the files say: versions whose contract cannot be read are passed over. None if no version answers.
    """
    numbers = sorted(published)
    if DEFAULT in config.aliases:
        return config.aliases[DEFAULT]
    wanted = reversed(config.wanted(numbers))
    return next((number for number in wanted if _contract(root, name, number) is not None), None)


def config_of(root: Path, name: str) -> ModelConfig:
    """Return the model's configuration; the defaults if its file has a mistake, which others report."""
    try:
        return model_toml.read(root, name)
    except ContractBroken:
        return ModelConfig()


def moves_of_edit(
    root: Path, name: str, before: ModelConfig, after: ModelConfig, answered: int | None = None
) -> list[Move]:
    """Return whose requests get another version by a change of model.toml, all of them or a part for a canary.

    answered: what answered requests without a version until now, if the caller knows it better than the files.
    """
    published = paths.versions(root, name)
    old = _targets(root, name, before, published, answered if DEFAULT not in before.aliases else None)
    moves = _moves(root, name, after, old, _targets(root, name, after, published, None), {})
    if after.canary is not None and (before.canary is None or before.canary.version != after.canary.version):
        moves += _moves(root, name, after, old, {UNNAMED: after.canary.version}, {})
    return moves


def moves_of_publish(
    root: Path, name: str, contract: Contract, number: int, alias: str | None, before: ModelConfig | None = None
) -> list[Move]:
    """Return whose requests get a version that is about to be published as `number`, with an alias or without.

    before: the model's configuration before the publish; by default the present one.
    """
    config = config_of(root, name) if before is None else before
    published = [each for each in paths.versions(root, name) if each != number]
    old = _targets(root, name, config, published, None)
    aliases = config.aliases if alias is None else {**config.aliases, alias: number}
    after = msgspec.structs.replace(config, aliases=aliases)
    new = {label: target for label, target in after.aliases.items() if label != DEFAULT}
    wanted = after.wanted([*published, number])
    is_highest = number in wanted and number > old.get(UNNAMED, 0)
    if after.aliases.get(DEFAULT) == number or (DEFAULT not in after.aliases and is_highest):
        new[UNNAMED] = number
    return _moves(root, name, config, old, new, {number: contract})


def _targets(root: Path, name: str, config: ModelConfig, published: list[int], answered: int | None) -> dict[str, int]:
    found = {label: target for label, target in config.aliases.items() if label != DEFAULT}
    unnamed = answered if answered is not None else answering(root, name, config, published)
    return found if unnamed is None else {**found, UNNAMED: unnamed}


def _moves(
    root: Path, name: str, config: ModelConfig, old: Mapping[str, int], new: Mapping[str, int],
    known: Mapping[int, Contract],
) -> list[Move]:  # fmt: skip
    found = []
    for label, target in new.items():
        before = old.get(label, target)
        if before == target:
            continue
        was, now = _contract(root, name, before), known.get(target) or _contract(root, name, target)
        if was is not None and now is not None:  # one that cannot be read answers nobody
            found.append(Move(label, before, target, tuple(compatibility.compare(was, now, config.columns))))
    return found


def first_breaking(moves: Iterable[Move]) -> Move | None:
    """Return the first of the moves that breaks clients; None if none does."""
    return next((move for move in moves if compatibility.breaking(move.differences)), None)


def refusal(name: str, move: Move) -> str:
    """Return the sentence that says whom a move would break, and by what."""
    found = compatibility.breaking(move.differences)
    many = f"{len(found)} differences break" if len(found) > 1 else "a difference breaks"
    return (
        f"{name}/{move.new} would take the {move.requests}, which {name}/{move.old} answers now, and {many} their "
        f"clients: {compatibility.in_words(found)}"
    )


def refuse_edit(root: Path, name: str, answered: int | None, before: ModelConfig, after: ModelConfig) -> None:
    """Raise ReleaseRefused if a change of model.toml gives requests to a version that breaks their clients.

    answered: see `moves_of_edit`.
    """
    if (move := first_breaking(moves_of_edit(root, name, before, after, answered))) is not None:
        raise ReleaseRefused(
            f"{refusal(name, move)}. Nothing has changed. Look: `tableside diff {name}/{move.old} {name}/{move.new}`. "
            "If the clients are ready, add --breaking"
        )


def in_words(name: str, moves: Iterable[Move]) -> list[str]:
    """Return a sentence for each of the moves in which clients see a difference."""
    return [
        f"for clients {name}/{move.new} differs from {name}/{move.old}, which answered the {move.requests} before: "
        f"{compatibility.in_words(move.differences)}"
        for move in moves
        if move.differences
    ]


def _contract(root: Path, name: str, number: int) -> Contract | None:
    try:
        return integrity.read_contract(root, name, number)
    except ContractBroken:
        return None
