"""What the doctor reports: a finding."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Level(StrEnum):
    """ERROR: requests are lost, or refused by mistake, or a secret is open. WARNING: they will be in a case that has
    not come yet. NOTE: worth knowing.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Finding(msgspec.Struct, frozen=True):
    """One thing that does not fit. Each member is a sentence or a phrase for people.

    about: the area, such as `timeouts`. title: what is wrong. figures: the values that were compared. consequence: what
    happens because of it. change: the setting or file to change, and to what.
    """

    level: Level
    about: str
    title: str
    figures: str
    consequence: str
    change: str

    def line(self) -> str:
        """Return the finding in one line, for the start of a stack."""
        words = f"{self.level}: {self.title} ({self.figures}): {self.consequence}. {self.change}"
        return " ".join(words.split())
