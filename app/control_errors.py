"""Errors of the control plane: what an operator asked for cannot be done as things stand."""

from __future__ import annotations

from dataclasses import dataclass

from tableside.errors import TablesideError


@dataclass
class Forbidden(TablesideError):
    """The server takes this from nobody, or only after a step on its own host, which the text names."""

    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass
class Conflict(TablesideError):
    """The change does not fit to what the server has now. reasons: one line for each worker that refuses it."""

    detail: str
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.detail


@dataclass
class GenerationChanged(TablesideError):
    """The change was made for generation `asked`, and the server serves `generation`."""

    asked: str
    generation: int

    def __str__(self) -> str:
        return (
            f"If-Match names generation {self.asked}, and the server serves generation {self.generation}: somebody has "
            "changed something since. Look at GET /admin/api/models, then send the change again"
        )
