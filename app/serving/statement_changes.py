"""Says in words what a generation has changed, for its line in the log."""

from __future__ import annotations

from collections.abc import Iterable

from tableside.serving.statement import Key, ModelStatement, Statement

MOST = 20
"""How many changes of each kind are named."""


def in_words(before: Statement, now: Statement) -> dict[str, str]:
    """Return the fields of the log line; one that would be empty is left out.

    came, went: versions that are served now, and that were before. aliases: `iris@default 1 -> 2`. refused: versions
    that are left out now and were not before, with the reason. files: models whose model.toml, or files of a version,
    differ. unread: models whose model.toml cannot be used now, with the reason.
    """
    found = {
        "came": map(_spec, sorted(now.sound - before.sound)),
        "went": map(_spec, sorted(before.sound - now.sound)),
        "aliases": _aliases(before, now),
        "refused": (
            f"{_spec(key)}: {why.reason}"
            for key, why in sorted(now.refusals.items(), key=lambda item: item[0])
            if before.refusals.get(key) != why
        ),
        "files": (name for name, old, new in _common(before, now) if (old.text, old.files) != (new.text, new.files)),
        "unread": (
            f"{name}: {new.problem}" for name, old, new in _common(before, now) if new.problem not in ("", old.problem)
        ),
    }
    return {kind: text for kind, each in found.items() if (text := _listed(each))}


def _common(before: Statement, now: Statement) -> list[tuple[str, ModelStatement, ModelStatement]]:
    return [(name, before.models[name], now.models[name]) for name in sorted(before.models.keys() & now.models.keys())]


def _aliases(before: Statement, now: Statement) -> list[str]:
    changes = []
    for name in sorted(before.models.keys() | now.models.keys()):
        old = before.models.get(name, ModelStatement()).aliases
        new = now.models.get(name, ModelStatement()).aliases
        for alias in sorted(old.keys() | new.keys()):
            if old.get(alias) != new.get(alias):
                changes.append(f"{name}@{alias} {old.get(alias, 'none')} -> {new.get(alias, 'none')}")
    return changes


def _spec(key: Key) -> str:
    return f"{key[0]}/{key[1]}"


def _listed(each: Iterable[str]) -> str:
    every = list(each)
    more = f" and {len(every) - MOST} more" if len(every) > MOST else ""
    return ", ".join(every[:MOST]) + more
