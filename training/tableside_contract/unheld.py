"""Finds the part of an estimator that no skops file can hold."""

from __future__ import annotations

from typing import Any, Iterator

_SCALARS = (str, bytes, int, float, complex, bool, type(None))
_MAX_DEPTH = 20


def smallest_unheld(estimator: Any) -> str:
    """Return the smallest part that skops cannot write and read, with its class and the reason.

    It reads `mapping of step 'encode' (pandas.core.series.Series) cannot be held in a skops file: ... It is in an
    estimator of the class category_encoders.ordinal.OrdinalEncoder`. Empty if skops holds the estimator.
    """
    problem = _failure(estimator)
    if problem is None:
        return ""
    place, part, owner = "", estimator, estimator
    for _ in range(_MAX_DEPTH):
        inner = _first_unheld(place, part)
        if inner is None:
            break
        place, part, problem = inner
        owner = part if hasattr(part, "get_params") else owner
    reason = " ".join(f"{type(problem).__name__}: {problem}".split())
    whose = "" if owner is part else f". It is in an estimator of the class {_class(owner)}"
    return "{} ({}) cannot be held in a skops file: {}{}".format(place or "the estimator", _class(part), reason, whose)


def _class(part: Any) -> str:
    return f"{type(part).__module__}.{type(part).__name__}"


def _first_unheld(place: str, part: Any) -> tuple[str, Any, Exception] | None:
    for name, inner in _children(part):
        problem = None if isinstance(inner, _SCALARS) else _failure(inner)
        if problem is not None:
            return (name + " of " + place if place else name), inner, problem
    return None


def _children(part: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds directly, with the names that a trainer knows: steps and transformers by theirs."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield str(key), value
    elif isinstance(part, (list, tuple)):
        for at, item in enumerate(part):
            yield f"item {at}", item
    elif hasattr(part, "get_params"):
        for name, value in vars(part).items():
            if _are_named(value):
                kind = {"steps": "step"}.get(name, name.rstrip("_").rstrip("s"))
                for item in value:
                    for inner in item[1:]:
                        yield f"{kind} {item[0]!r}", inner
            else:
                yield name, value


def _are_named(value: Any) -> bool:
    """Whether this is a list of pairs with a name, such as the steps of a pipeline."""
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(item, tuple) and len(item) > 1 and isinstance(item[0], str) for item in value)
    )


def _failure(part: Any) -> Exception | None:
    """What skops raises when it writes and reads this object; None when it holds it."""
    try:
        import skops.io

        content = skops.io.dumps(part)
        skops.io.loads(content, trusted=skops.io.get_untrusted_types(data=content))
    except Exception as problem:  # noqa: BLE001 - any class of the estimator may raise anything
        return problem
    return None
