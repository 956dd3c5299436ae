"""Reads the artifact of a version: a skops file, or a pickle to which there is consent; with the version's own code.

Runs in other environments: Python 3.8, no import of Tableside (see tableside.model_process.child.wire). The worker has
checked the consent, and sends the bytes of the own code and the SHA-256 of the artifact.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.util
import io
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Iterator

if TYPE_CHECKING or __package__:
    from tableside.contracts import artifact_checks, artifact_size, native_boosters
    from tableside.own_code import importer
else:
    import artifact_checks
    import artifact_size
    import native_boosters

    _FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "own_code")
    _SPEC = importlib.util.spec_from_file_location(
        "tableside_own_code", os.path.join(_FOLDER, "__init__.py"), submodule_search_locations=[_FOLDER]
    )
    sys.modules["tableside_own_code"] = importlib.util.module_from_spec(_SPEC)
    importer = importlib.import_module("tableside_own_code.importer")


class LoadRefused(Exception):
    """A version cannot be loaded. kind: a FailureKind of the server."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


def runs_code(request: dict[str, Any]) -> bool:
    """Return whether loading the version runs code that it brings, so that it needs consent each time."""
    return bool(request.get("code")) or request["format"] == "pickle"


def read_artifact(request: dict[str, Any]) -> Any:
    """Return the estimator of a load request. Raises LoadRefused."""
    path, name = request["path"], os.path.basename(request["path"])
    content = None
    if runs_code(request) or request.get("in_memory"):
        with open(path, "rb") as file:
            content = file.read()  # the bytes that are hashed are the bytes that are loaded
    digest = hashlib.sha256(content).hexdigest() if content is not None else _digest(path)
    if digest != request["sha256"]:
        raise LoadRefused(f"{name} has another sha256 than the contract says", "damaged")
    code = _own_code(request)
    if request["format"] == "pickle" and content is not None:
        return _read_pickle(content, name, code)
    if request["format"] != "skops":
        raise LoadRefused("a model process loads skops files and pickles, not {}".format(request["format"]), "other")
    return _read_skops(path, content, set(request["trusted"]))


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _own_code(request: dict[str, Any]) -> Any:
    """Make the own code of the version importable; None without any."""
    files = {path: base64.b64decode(text) for path, text in request.get("code", {}).items()}
    if not files:
        return None
    folder = os.path.join(os.path.dirname(request["path"]), "code")
    return importer.install(files, lambda path: os.path.join(folder, path))


@contextmanager
def _names_of(code: Any) -> Iterator[None]:
    if code is None:
        yield
    else:
        with importer.original_names(code):
            yield


def _read_pickle(content: bytes, name: str, code: Any) -> Any:
    try:
        import joblib

        with _names_of(code):
            return joblib.load(io.BytesIO(content))
    except ImportError as problem:
        raise LoadRefused(f"{name} needs a module that the environment lacks: {problem}", "environment")
    except Exception as problem:
        raise LoadRefused(f"{name} cannot be loaded: {type(problem).__name__}: {problem}", "other")


def _read_skops(path: str, content: bytes | None, allowed: set[str]) -> Any:
    name = os.path.basename(path)
    try:
        import skops.io
    except ImportError as problem:
        raise LoadRefused(f"skops cannot be imported ({problem}); install it into the environment", "environment")
    try:
        too_much = artifact_size.problem(path if content is None else io.BytesIO(content))
        if too_much:
            raise LoadRefused(f"{name} is not read: {too_much}", "untrusted")
        if content is None:
            found = skops.io.get_untrusted_types(file=path)
        else:
            found = skops.io.get_untrusted_types(data=content)
        unknown = sorted(set(found) - allowed)
        if not unknown:
            loaded = skops.io.load(path if content is None else io.BytesIO(content), trusted=list(found))
            unknown = sorted(native_boosters.classes(loaded) - allowed)
            damage = artifact_checks.problem(loaded)
            if damage:
                raise LoadRefused(f"{name} cannot be served: {damage}", "untrusted")
            if not unknown:
                return native_boosters.attach(loaded, os.path.dirname(path))
    except native_boosters.BoosterError as problem:
        raise LoadRefused(str(problem), problem.kind)
    except LoadRefused:
        raise
    except Exception as problem:
        raise LoadRefused(f"{name} cannot be loaded: {type(problem).__name__}: {problem}", "other")
    raise LoadRefused("{} holds types that are not trusted: {}".format(name, ", ".join(unknown)), "untrusted")
