"""Loads scikit-learn estimators from skops files. Nothing here loads pickle."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tableside.contracts import artifact_checks, artifact_size, native_boosters
from tableside.contracts.answers import MethodAnswer
from tableside.contracts.conversion import as_array as as_array
from tableside.contracts.conversion import is_single_threaded
from tableside.contracts.conversion import parts as parts
from tableside.contracts.conversion import single_threaded as single_threaded
from tableside.contracts.table import Table
from tableside.errors import ContractBroken, FailureKind
from tableside.runtimes import trusted_types
from tableside.runtimes.checked_artifacts import Built, Entry
from tableside.runtimes.trusted_types import TRUSTED
from tableside_contract.facts import Facts, describe


def warm_up() -> None:
    """Import the libraries that every artifact needs, so that they do not count as time of the first load."""
    import sklearn.pipeline  # noqa: F401
    import skops.io  # noqa: F401


class SklearnRuntime:
    """Runs an estimator: one that was loaded from a skops file, or the trainer's estimator during publish."""

    platform = "scikit-learn_skops"

    def __init__(self, estimator: Any, is_single_threaded: bool = False) -> None:
        self.estimator = estimator if is_single_threaded else single_threaded(estimator)
        self.golden_difference = 0.0
        """The largest relative difference of its golden answers here from those of publish."""

    @cached_property
    def facts(self) -> Facts:
        """What the fitted estimator says of itself."""
        return describe(self.estimator)

    def prepare(self, table: Table) -> Any:
        """The table as the DataFrame, matrix or list of texts that the estimator takes."""
        return table.to_input()

    def run(self, method: str, data: Any) -> MethodAnswer:
        """Run `method` on `data`. Sparse answers become dense; a DataFrame becomes an array in its column order."""
        answer = getattr(self.estimator, method)(data)
        return [as_array(part) for part in answer] if isinstance(answer, list) else as_array(answer)


def load(
    path: Path, trusted: Iterable[str] = (), content: bytes | Callable[[], bytes] | None = None,
    expected: Iterable[str] | None = None, entry: Entry | None = None,
) -> SklearnRuntime:  # fmt: skip
    """Load a skops file and the boosters beside it. Each type must be trusted by skops, this project or the operator.

    trusted: the operator's types (`trusted_types.expand`), and the types of own code to which there is consent.
    content: the bytes of the file, which is not read then, or what reads and verifies them. expected: the types that
    skops does not trust, as the contract names them; the file is then audited once instead of twice. entry: where the
    content of the file is kept for later loads on this host; the file is not read if it is there. Raises
    ContractBroken, which names the types that nobody trusts, or the reason why the file cannot be read.
    """
    allowed = TRUSTED | set(trusted)
    try:
        found = entry.open(path.name, allowed) if entry is not None else None
        if found is None:
            found = _read(path, allowed, content, None if expected is None else allowed & set(expected), entry)
        if found.is_finished:
            return SklearnRuntime(found.estimator, is_single_threaded=True)
        trusted_types.check(path.name, native_boosters.classes(found.estimator), allowed)
        return SklearnRuntime(native_boosters.attach(found.estimator, str(path.parent)))
    except ContractBroken:
        raise
    except native_boosters.BoosterError as problem:
        raise ContractBroken(str(problem), FailureKind(problem.kind)) from problem
    except ModuleNotFoundError as missing:
        if find_spec(str(missing.name).partition(".")[0]):  # another release of an installed package has the module
            raise _damaged(path, missing) from missing
        raise ContractBroken(
            f"{path.name} needs the package {missing.name}, which is not installed here. Install it into the "
            f"environment of the server{native_boosters.install_hint(missing.name)}",
            FailureKind.ENVIRONMENT,
        ) from missing
    except Exception as damage:
        raise _damaged(path, damage) from damage


def _damaged(path: Path, damage: Exception) -> ContractBroken:
    return ContractBroken(f"{path.name} cannot be loaded: {type(damage).__name__}: {damage}", FailureKind.OTHER)


def _read(
    path: Path, allowed: Set[str], given: bytes | Callable[[], bytes] | None, expected: Set[str] | None,
    entry: Entry | None,
) -> Built:  # fmt: skip
    """Read the file with skops, and make its entry. One process of the host does so, and the others wait for it."""
    content = given() if callable(given) else given
    if entry is None:
        return Built(_checked(path, allowed, content, expected)[0])
    with entry.making():
        found = entry.open(path.name, allowed)
        if found is None:
            estimator, untrusted = _checked(path, allowed, content, expected)
            found = Built(estimator)
            entry.put(path if content is None else io.BytesIO(content), untrusted, estimator, _is_finished(estimator))
    return found


def _is_finished(estimator: object) -> bool:
    """Whether the content of an artifact is the whole estimator: without boosters, and with one thread."""
    return not native_boosters.classes(estimator) and is_single_threaded(estimator)


def _checked(path: Path, allowed: Set[str], content: bytes | None, expected: Set[str] | None) -> tuple[Any, Set[str]]:
    """What `_audited` returns.

    Raises ContractBroken if the file unpacks to too much for its size, or the estimator would read files or memory that
    are not its own.
    """
    if found := artifact_size.problem(str(path) if content is None else io.BytesIO(content)):
        raise ContractBroken(f"{path.name} is not read: {found}", FailureKind.UNTRUSTED)
    estimator, untrusted = _audited(path, allowed, content, expected)
    if found := artifact_checks.problem(estimator):
        raise ContractBroken(f"{path.name} cannot be served: {found}", FailureKind.UNTRUSTED)
    return estimator, untrusted


def _audited(path: Path, allowed: Set[str], content: bytes | None, expected: Set[str] | None) -> tuple[Any, Set[str]]:
    """What skops builds of the file, and at least the types in it that skops itself does not trust."""
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    if expected is not None:
        with suppress(UntrustedTypesFoundException):
            return skops.io.load(path if content is None else io.BytesIO(content), trusted=sorted(expected)), expected
    held = skops.io.get_untrusted_types(**({"file": path} if content is None else {"data": content}))
    trusted_types.check(path.name, held, allowed)
    return skops.io.load(path if content is None else io.BytesIO(content), trusted=held), set(held)
