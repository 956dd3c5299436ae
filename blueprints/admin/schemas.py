"""Bodies of the admin API's changes. A member that is not known is an error: a typing mistake must change nothing."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Spec = Annotated[int, Meta(ge=1, le=10**18)] | Annotated[str, Meta(min_length=1, max_length=64)]
"""A version: its number, or an alias."""
Percent = Annotated[float, Meta(ge=0, le=100)]


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of load, unload and rollback: empty, or `{}`."""


class Promote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of promote. breaking: also a version that breaks clients. if_ready: only if the model's rules say so."""

    version: Spec
    breaking: bool = False
    if_ready: bool = False


class Alias(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of alias. version: what it names from now on; null removes the alias."""

    alias: Annotated[str, Meta(min_length=1, max_length=64)]
    version: Spec | None
    breaking: bool = False


class Retire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of retire. undo: serve the version again."""

    version: Spec
    undo: bool = False
    breaking: bool = False


class Delete(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of delete."""

    version: Spec


class Traffic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of traffic. version, percent: of the canary. sticky: a header. stop: end the canary."""

    version: Spec | None = None
    percent: Percent | None = None
    sticky: Annotated[str, Meta(max_length=64)] | None = None
    stop: bool = False
    breaking: bool = False


class Shadow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of shadow. percent: of the answered requests. cpu_share: of one core, in each worker. stop: end it."""

    version: Spec | None = None
    percent: Percent | None = None
    cpu_share: Annotated[float, Meta(gt=0, le=1)] | None = None
    stop: bool = False
