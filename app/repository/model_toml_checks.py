"""What model.toml says that the published versions contradict. `tableside list` and `tableside reload` report it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tableside.contracts.schema import Column
from tableside.errors import ContractBroken
from tableside.nearest_names import did_you_mean
from tableside.repository import integrity, paths
from tableside.repository.model_toml import ModelConfig

_MOST_NAMES = 12


def contradictions(root: Path, name: str, config: ModelConfig) -> list[str]:
    """Return a sentence for each name of a missing version, for a misspelt `default`, for each canary or shadow that is
    what `default` names, and for each column whose `missing_words` have no effect.

    Contracts are read only if there are such columns; those that cannot be read have a problem of their own.
    """
    published = paths.versions(root, name)
    found = [
        f"alias {alias!r} in model.toml points at version {number}, which does not exist"
        for alias, number in sorted(config.aliases.items())
        if number not in published
    ]
    found += [
        f"alias {alias!r} in model.toml does not answer requests without a version.{hint}"
        for alias in sorted(config.aliases)
        if paths.DEFAULT not in config.aliases and (hint := did_you_mean(alias, [paths.DEFAULT]))
    ]
    found += list(_of_candidates(config, published))
    if config.columns.missing_words:
        found += _without_effect(list(_columns(root, name, config.wanted(published))), config)
    return found


def _of_candidates(config: ModelConfig, published: list[int]) -> Iterator[str]:
    default = config.aliases.get(paths.DEFAULT)
    for kind, number in config.candidates.items():
        if number not in published:
            yield f"{kind} in model.toml names version {number}, which does not exist"
        elif number == default:
            yield f"{kind} in model.toml names version {number}, which is what `default` names: nothing is compared"
        elif default is None:
            yield f"{kind} in model.toml needs the alias `default`, which says what answers the other requests"


def _columns(root: Path, name: str, numbers: list[int]) -> Iterator[Column]:
    for number in numbers:
        try:
            yield from integrity.read_contract(root, name, number).input.columns
        except ContractBroken:
            continue


def _without_effect(columns: list[Column], config: ModelConfig) -> list[str]:
    if not columns:
        return []
    known = list(dict.fromkeys(column.name for column in columns))
    taking = {column.name for column in columns if column.datatype == "BYTES" and column.nullable}
    return [
        f"columns.missing_words in model.toml names {_problem(column, known)}"
        for column in sorted(config.columns.missing_words)
        if column not in taking
    ]


def _problem(column: str, known: list[str]) -> str:
    if column in known:
        return f"the column {column!r}, which is none of text that accepts missing cells, so that they have no effect"
    shown = ", ".join(known[:_MOST_NAMES]) + (f", ... ({len(known)} columns)" if len(known) > _MOST_NAMES else "")
    return f"the column {column!r}, which no served version has; there are {shown}"
