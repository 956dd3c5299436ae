"""The statement of a generation: which versions of each model serve, under which aliases and settings.

It is complete. Every worker makes its catalog from it and from the files of the versions, and reads no model.toml. So
all workers of a host agree, also those that start while somebody edits the files.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tableside.errors import ContractBroken, FailureKind
from tableside.repository import model_toml
from tableside.repository.model_toml import ModelConfig

Key = tuple[str, int]
"""A model's name and a version's number."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a version is not served."""

    kind: FailureKind
    reason: str


class ModelStatement(msgspec.Struct, frozen=True, omit_defaults=True):
    """One model of a generation.

    text: the model.toml in force; None without a file. versions: those that serve, and those that should but are in
    `refused`, lowest first. aliases: those that answer. files: a value that changes with the versions' files. problem:
    why the file in the repository is not in force; empty if it is.
    """

    text: str | None = None
    versions: tuple[int, ...] = ()
    aliases: dict[str, int] = {}
    refused: dict[int, Refusal] = {}
    files: str = ""
    problem: str = ""
    problem_kind: FailureKind = FailureKind.NONE

    def config(self, name: str) -> ModelConfig:
        """Return the content of the model.toml in force. Raises ContractBroken for one that another release wrote."""
        return ModelConfig() if self.text is None else model_toml.decode(name, self.text.encode())

    @property
    def sound(self) -> list[int]:
        """The versions that are not refused, lowest first."""
        return [version for version in self.versions if version not in self.refused]


class Statement(msgspec.Struct, frozen=True):
    """All models of a generation by name.

    time: when it was made, in seconds of the epoch. reason: by what. repository: the folder that it was read from.
    starts: the models that start again if they were stopped because of their requests; None for all.
    """

    generation: int = 0
    models: dict[str, ModelStatement] = {}
    reason: str = ""
    time: float = 0.0
    repository: str = ""
    starts: tuple[str, ...] | None = ()

    @property
    def refusals(self) -> dict[Key, Refusal]:
        """The versions that every worker leaves out, with the reasons."""
        return {
            (name, version): refusal
            for name, model in self.models.items()
            for version, refusal in model.refused.items()
        }

    @property
    def sound(self) -> set[Key]:
        """The versions that are not left out."""
        return {(name, version) for name, model in self.models.items() for version in model.sound}


EMPTY = Statement()


def encode(statement: Statement) -> bytes:
    """Return a statement as JSON."""
    return msgspec.json.encode(statement)


def decode(content: bytes) -> Statement:
    """Return the statement of JSON. Raises ContractBroken for content of another form, as of another release."""
    try:
        return msgspec.json.decode(content, type=Statement)
    except msgspec.DecodeError as problem:
        raise ContractBroken(f"no statement of a generation: {problem}") from problem


def changed(before: Statement, now: Statement) -> list[str]:
    """Return the names of the models in which two statements differ, sorted."""
    return sorted(_differing(before.models, now.models))


def _differing(before: Mapping[str, ModelStatement], now: Mapping[str, ModelStatement]) -> set[str]:
    return {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
