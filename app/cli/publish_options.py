"""The options of `tableside publish` as one object, which the command line and a manifest fill."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec


class PublishOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one publish is told besides the model's name, the estimator and the repository.

    Each option of the command, and each key of a manifest's `[[model]]`, has the name of its field here.
    types, nullable: the option's text; in a manifest also a table of dtypes by column, and a list of columns.
    """

    sample: Path | None = None
    expect: Path | None = None
    version: int | None = None
    alias: str | None = None
    target: str | None = None
    runtime: Literal["auto", "sklearn"] = "auto"
    tolerance: float = 0.0
    types: str | dict[str, str] | None = None
    nullable: str | tuple[str, ...] | None = None
    allow_pickle: bool = False
    quick: bool = False
    allow_code: bool = False
    code: tuple[Path, ...] = ()
    as_pickle: bool = False
    environment: str | None = None
    sign: Path | None = None
    breaking: bool = False

    def declared_types(self) -> dict[str, str]:
        """Return the dtypes by column. Raises PublishFailed for a text that is none, and for an unknown dtype."""
        from tableside.publishing import column_types

        return column_types.parse(self.types) if isinstance(self.types, str) else column_types.check(self.types or {})

    def nullable_columns(self) -> tuple[str, ...] | Literal["all"]:
        """Return the columns that accept missing cells although the sample has none there."""
        if self.nullable == "all":
            return "all"
        return tuple(self.nullable.split(",")) if isinstance(self.nullable, str) else self.nullable or ()

    def below(self, folder: Path) -> PublishOptions:
        """Return the options with relative paths taken from this folder."""
        paths = {
            name: folder / value for name in self.__struct_fields__ if isinstance(value := getattr(self, name), Path)
        }
        types = self.types
        if isinstance(types, str) and (
            "=" not in types or (folder / types).is_file()
        ):  # as column_types.parse reads it
            types = str(folder / types)
        return msgspec.structs.replace(self, **paths, types=types, code=tuple(folder / path for path in self.code))


def from_command_line(given: dict[str, object]) -> PublishOptions:
    """Return the options that click has read, by name. Raises msgspec.ValidationError for an unknown name."""
    return msgspec.convert(given, PublishOptions, dec_hook=path_hook)


def path_hook(kind: type, value: object) -> object:
    """Convert a text to a path, for msgspec."""
    return Path(value) if kind is Path and isinstance(value, (str, Path)) else value
