"""Finds the part of an estimator that an artifact cannot hold, and says what to do about it."""

from __future__ import annotations

import functools
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from tableside.contracts import artifact_checks
from tableside.contracts.object_graph import objects
from tableside.errors import PublishFailed
from tableside.own_code.importer import PREFIX

BY_PICKLE = (
    "or publish with --as-pickle: the artifact is then a pickle, which runs in a process of its own and only with "
    "consent"
)
EXAMPLE = "my_transformers.py"
MAX_OBJECTS = 20_000
"""After this many objects the search ends: it only explains an error, or finds it early."""
_OWN = re.compile(rf"^{PREFIX}[0-9a-f]+\.")
_SCALARS = (str, bytes, int, float, complex, bool, type(None), np.generic)


def located(estimator: object) -> Iterator[tuple[str, object]]:
    """Yield the estimator and everything inside it, each with its place in words; the estimator's place is empty.

    A place reads `step 'encode'`, `func of step 'log'` or `means_ of transformer 'cat' of step 'prepare'`.
    """
    seen: set[int] = set()
    stack: list[tuple[str, object]] = [("", estimator)]
    while stack and len(seen) < MAX_OBJECTS:
        place, each = stack.pop()
        if isinstance(each, _SCALARS) or id(each) in seen:
            continue
        seen.add(id(each))
        yield place, each
        stack.extend(reversed(list(children(place, each))))


def children(place: str, parent: object) -> Iterator[tuple[str, object]]:
    """Yield what an object holds directly, each with its place."""
    if isinstance(parent, np.ndarray):
        parent = list(parent.ravel()) if parent.dtype == object else []
    if isinstance(parent, functools.partial):
        parent = {"func": parent.func, "args": parent.args, "keywords": parent.keywords}
    if isinstance(parent, (list, tuple, set, frozenset)):
        for at, item in enumerate(parent):
            yield from _item(place, at, item)
    elif isinstance(parent, dict):
        for key, value in parent.items():
            yield _of(str(key), place), value
    elif _is_estimator(parent):
        for name, value in vars(parent).items():
            is_named = isinstance(value, (list, tuple)) and bool(value) and all(map(_is_named, value))
            yield (f"{name}|{place}" if is_named else _of(name, place)), value


def _item(place: str, at: int, item: object) -> Iterator[tuple[str, object]]:
    """A member of a list. Steps and transformers, which are pairs with a name, are called by it."""
    attribute, bar, outer = place.partition("|")
    if not bar:
        yield _of(f"item {at}", place), item
        return
    name, *parts = item if isinstance(item, tuple) else ("", item)
    kind = {"steps": "step", "transformer": "transformer"}.get(attribute, attribute.rstrip("_").rstrip("s"))
    for part in parts:
        yield _of(f"{kind} {name!r}", outer), part


def _is_named(item: object) -> bool:
    return isinstance(item, tuple) and len(item) > 1 and isinstance(item[0], str)


def _of(name: str, place: str) -> str:
    return f"{name} of {place}" if place else name


def _is_estimator(each: object) -> bool:
    return hasattr(each, "get_params") and hasattr(each, "__dict__") and not isinstance(each, type)


def type_name(each: object) -> str:
    """Return the trainer's name of an object: its own for a function or a class, that of its class otherwise."""
    named = each if isinstance(each, (FunctionType, type)) else type(each)
    return _OWN.sub("", f"{named.__module__}.{named.__name__}")


def refuse_unnamed(estimator: object) -> None:
    """Raise PublishFailed for what no server may hold: a class or function that no other process can import, with how
    to move it, and a text vectorizer that reads files."""
    for part in objects(estimator):
        if found := artifact_checks.reads_files(part):
            raise PublishFailed(f"{type(part).__name__} {found}")
    for place, each in located(estimator):
        if isinstance(each, MethodType):
            each = each.__func__
        named = each if isinstance(each, (FunctionType, type)) else type(each)
        name = getattr(named, "__qualname__", "")
        what = f"{place or 'the estimator'} is" if named is each else f"{place or 'the estimator'} is of"
        if "<lambda>" in name:
            raise PublishFailed(
                f"{what} a lambda, which has no name by which another process could find it. Write it as a function "
                f"in a file, for example {EXAMPLE}, import it from there, train again, and publish with "
                f"--code {EXAMPLE}; {BY_PICKLE}"
            )
        kind = "class" if isinstance(named, type) else "function"
        if "<locals>" in name:
            raise PublishFailed(
                f"{what} the {kind} {named.__name__}, which is defined inside a function ({name}), so that no other "
                f"process can import it. Move it to the top level of a file, for example {EXAMPLE}, train again, and "
                f"publish with --code {EXAMPLE}; {BY_PICKLE}"
            )
        if named.__module__ in ("__main__", "__mp_main__"):
            raise PublishFailed(f"{what} the {kind} {named.__name__}. {how_to_move(kind, named.__name__)}")


def how_to_move(kind: str, name: str) -> str:
    """Return what to do with a class or function of the training script itself."""
    return (
        f"The {kind} {name} is defined in the script or notebook that trained the model (module __main__), which no "
        f"other process can import. Move it into a file of its own, for example {EXAMPLE}, write `from "
        f"{EXAMPLE.removesuffix('.py')} import {name}` in the script, train again, and publish with --code {EXAMPLE}"
    )


def hint_of_types(estimator: object, types: list[str]) -> str:
    """Return where these untrusted types are in the estimator, and which files `--code` should be given for them.

    types: as the skops file names them. Returns an empty text when all are of installed libraries.
    """
    hints, seen = [], set()
    for place, each in located(estimator):
        name = type_name(each)
        if name not in types or name in seen:
            continue
        seen.add(name)
        file = _source_outside(name.rpartition(".")[0])
        if file is not None:
            hints.append(f"{name} ({place or 'the estimator'}) is your own code: publish with `--code {file}`")
    return "".join(f". {hint}" for hint in hints)


def _source_outside(module: str) -> str | None:
    """The file or package folder of a module's top level, where it is not in this environment's library folders."""
    top = sys.modules.get(module.partition(".")[0])
    places = [getattr(top, "__file__", None), *getattr(top, "__path__", [])]
    source = next((Path(place) for place in places if place), None)
    if source is None or any(source.is_relative_to(path) for path in set(sysconfig.get_paths().values())):
        return None
    return str(source.parent if source.name == "__init__.py" else source)


def refuse_unheld(estimator: object, problem: Exception) -> PublishFailed:
    """Return the error for an estimator that skops cannot write or read again; it names the part and its class."""
    place, part, cause, owner = _smallest_unheld(estimator, problem)
    holder = type_name(part)
    whose = "" if owner is part else f" It is in an estimator of the class {type_name(owner)}."
    reason = " ".join(f"{type(cause).__name__}: {cause}".split())
    where = f"{place} ({holder})" if place else f"the estimator ({holder})"
    return PublishFailed(
        f"{where} cannot be held in a skops file: {reason}.{whose} Keep plain values in fitted attributes (numbers, "
        f"text, lists, dicts, numpy arrays), {BY_PICKLE}"
    )


def _smallest_unheld(estimator: object, problem: Exception) -> tuple[str, object, Exception, object]:
    """Go down to the smallest part that cannot be written and read, as long as one of its parts cannot be either.

    Returns its place, the part, what skops raises, and the estimator that it is in.
    """
    found: tuple[str, object, Exception] = ("", estimator, problem)
    place, part, owner = "", estimator, estimator
    for _ in range(50):
        for inner_place, inner in children(place, part):
            problem_inside = None if isinstance(inner, _SCALARS) else failure(inner)
            if problem_inside is not None:
                place, part = inner_place, inner
                owner = part if _is_estimator(part) else owner
                if "|" not in place:
                    found = (place, part, problem_inside)
                break
        else:
            break
    return *found, owner


def failure(each: Any) -> Exception | None:
    """What skops raises when it writes and reads this object; None when it holds it."""
    import skops.io

    try:
        content = skops.io.dumps(each)
        skops.io.loads(content, trusted=skops.io.get_untrusted_types(data=content))
    except Exception as problem:  # noqa: BLE001 - any class of the estimator may raise anything
        return problem
    return None
