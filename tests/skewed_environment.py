"""Ways in which a version comes to differ from what was published, each applied to a folder of the repository."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import skops.io

from tableside.contracts import schema
from tableside.contracts.environment import sha256
from tableside.contracts.schema import Contract
from tableside.repository import paths
from tableside.runtimes.trusted_types import TRUSTED


def rewrite(folder: Path, change: Callable[[Contract], Contract]) -> None:
    """Change a published contract."""
    path = folder / paths.CONTRACT
    content = schema.encode(change(schema.decode(path.read_bytes())))
    path.chmod(0o644)
    path.write_bytes(content)


def next_version(root: Path, name: str, of: int | None = None) -> Path:
    """A copy of a model's version under the next number. of: which one; None for the newest."""
    newest = paths.versions(root, name)[-1]
    folder = root / name / str(newest + 1)
    shutil.copytree(root / name / str(of or newest), folder)
    rewrite(folder, lambda contract: msgspec.structs.replace(contract, version=newest + 1))
    return folder


def flip_a_bit(folder: Path) -> None:
    path = folder / paths.ARTIFACT
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def change_the_estimator(folder: Path, change: Callable[[Any], None]) -> None:
    """Change the fitted estimator and make the contract's hash fit: only the golden rows can tell."""
    path = folder / paths.ARTIFACT
    estimator = skops.io.load(path, trusted=[t for t in skops.io.get_untrusted_types(file=path) if t in TRUSTED])
    change(estimator)
    path.unlink()
    skops.io.dump(estimator, path)
    fresh = sha256(path)
    rewrite(folder, lambda c: msgspec.structs.replace(c, artifact=msgspec.structs.replace(c.artifact, sha256=fresh)))


def move_a_threshold(folder: Path, tree: int = 0, node: int = 0, by: float = 2.0) -> None:
    """One number of one tree of a forest."""

    def change(forest: Any) -> None:
        forest.estimators_[tree].tree_.threshold[node] *= by

    change_the_estimator(folder, change)


def swap_columns(folder: Path, one: int = 0, other: int = 1) -> None:
    """Two columns of contract.json change places."""

    def change(contract: Contract) -> Contract:
        columns = list(contract.input.columns)
        columns[one], columns[other] = columns[other], columns[one]
        return msgspec.structs.replace(contract, input=msgspec.structs.replace(contract.input, columns=tuple(columns)))

    rewrite(folder, change)


def another_minor(folder: Path) -> None:
    """As if it had been published with the next minor version of scikit-learn."""

    def change(contract: Contract) -> Contract:
        major, minor, *_ = contract.environment["scikit-learn"].split(".")
        environment = {**contract.environment, "scikit-learn": f"{major}.{int(minor) + 1}.0"}
        return msgspec.structs.replace(contract, environment=environment)

    rewrite(folder, change)


def with_the_trainers_answers(folder: Path) -> None:
    """As if its golden answers had been computed where it was trained."""
    rewrite(folder, lambda c: msgspec.structs.replace(c, golden=msgspec.structs.replace(c.golden, origin="trainer")))
