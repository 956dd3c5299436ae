"""The life of a servable, as a table."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """States of the model repository extension of the Open Inference Protocol."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


NEXT: dict[State, frozenset[State]] = {
    State.LOADING: frozenset((State.READY, State.UNAVAILABLE)),
    State.READY: frozenset((State.UNLOADING,)),
    State.UNLOADING: frozenset((State.UNAVAILABLE,)),
    State.UNAVAILABLE: frozenset((State.LOADING,)),
}


def check(old: State, new: State) -> State:
    """`new`, if a servable may go there from `old`. Raises ValueError: a bug, not an input."""
    if new not in NEXT[old]:
        raise ValueError(f"a servable cannot go from {old} to {new}")
    return new
