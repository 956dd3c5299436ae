"""The lifecycle of a servable: its states, and the table of allowed transitions."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """The states of the model repository extension of the Open Inference Protocol (V2)."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


UNLOADED = "unloaded: enabled is false in model.toml"
"""The reason of every version of a model that the operator has turned off."""

NEXT: dict[State, frozenset[State]] = {
    State.LOADING: frozenset((State.READY, State.UNAVAILABLE)),
    State.READY: frozenset((State.UNLOADING,)),
    State.UNLOADING: frozenset((State.UNAVAILABLE,)),
    State.UNAVAILABLE: frozenset((State.LOADING,)),
}
"""The states that may follow each state."""


def check(old: State, new: State) -> State:
    """Return `new` if it may follow `old`.

    Raises ValueError otherwise, which is a bug of the caller and never caused by a request.
    """
    if new not in NEXT[old]:
        raise ValueError(f"a servable cannot go from {old} to {new}")
    return new
