"""Own code in an MLflow model directory: the modules that MLflow saved because of `code_paths`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tableside.errors import ContractBroken, PublishFailed
from tableside.own_code.importer import OwnCode
from tableside.publishing.code_files import collect
from tableside.runtimes import sklearn as runtime_sklearn
from tableside.runtimes import skops_names

FLAVORS = ("python_function", "sklearn")
"""The flavours whose key `code` names the folder of own code."""


def find(
    folder: Path, flavors: Mapping[str, Mapping[str, Any]], resolve: Callable[[str], Path], *, allowed: bool
) -> OwnCode | None:  # fmt: skip
    """Make the modules of a model directory importable; None if it has none.

    resolve: returns the path of a file inside the directory, and raises PublishFailed for any other. allowed: whether
    the caller trusts the directory's code. Raises PublishFailed for code that it does not trust.
    """
    names = {str(flavors[flavor]["code"]) for flavor in FLAVORS if flavors.get(flavor, {}).get("code")}
    for name in sorted(names):
        inside = resolve(name)
        found = sorted(each for each in (inside.iterdir() if inside.is_dir() else ()) if _is_module(each))
        if found and not allowed:
            files = ", ".join(f"{name}/{each.name}" for each in found)
            kind = str(flavors.get("sklearn", {}).get("serialization_format", "pickle"))
            covers = "" if kind == "skops" else f". --allow-pickle, which the {kind} file needs, covers the code too"
            raise PublishFailed(
                f"{folder} brings own code ({files}), which runs when the model is read. Look at it, and add "
                f"--allow-code if you trust it{covers}"
            )
        for each in found:
            resolve(f"{name}/{each.name}")
        if found:
            return collect(found, f"{folder}:")
    return None


def _is_module(path: Path) -> bool:
    if path.name.startswith((".", "__")):
        return False
    return path.suffix == ".py" or (path.is_dir() and any(path.rglob("*.py")))


def load_skops(path: Path, trusted_types: tuple[str, ...], code: OwnCode | None) -> object:
    """Load a skops file, which names own code by the trainer's module names. Raises ContractBroken.

    scikit-learn's warning of another release is dropped: `tableside.publishing.skew` has decided on that before.
    """
    from sklearn.exceptions import InconsistentVersionWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        return _load(path, trusted_types, code)


def _load(path: Path, trusted_types: tuple[str, ...], code: OwnCode | None) -> object:
    if code is None:
        return runtime_sklearn.load(path, trusted_types).estimator
    import skops.io

    try:
        content = skops_names.rename_modules(path.read_bytes(), code.own_name)
        own = [kind for kind in skops.io.get_untrusted_types(data=content) if kind.startswith(f"{code.package}.")]
    except Exception as problem:
        raise ContractBroken(f"{path.name} cannot be read: {type(problem).__name__}: {problem}") from problem
    return runtime_sklearn.load(path, (*trusted_types, *own), content).estimator
