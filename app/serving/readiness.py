"""What a worker that is not ready is missing, as a list and as a sentence."""

from __future__ import annotations

from tableside.serving.catalog import Catalog
from tableside.serving.lifecycle import State

NAMED = 10
"""How many missing versions a sentence names."""
LISTED = 1000
"""How many of them are listed for programs."""


def missing(catalog: Catalog) -> list[str]:
    """Return the versions that are still to be loaded, as `name/version`."""
    return [f"{each.name}/{each.version}" for each in catalog if each.state is State.LOADING]


def what_is_missing(catalog: Catalog) -> str:
    """Return why a worker whose first load is not over is not ready."""
    names = missing(catalog)
    if not names:
        return "loading: the repository is being read"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"loading: {len(names)} of {sum(1 for _ in catalog)} versions are missing: {', '.join(names[:NAMED])}{more}"
