"""What model.toml says of the traffic of a model: the canary, the shadow, and the rules by which they are judged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import msgspec

Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")


class CanaryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version that answers a part of the requests that name no version.

    percent: how large that part is. sticky: a request header; requests with the same value of it get the same version,
    and those without one are divided by chance. since: when the comparison began; another moment begins it anew.
    """

    version: int
    percent: Percent
    sticky: str = ""
    since: datetime | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a `sticky` that cannot be the name of a header."""
        if self.sticky and not _HEADER_NAME.match(self.sticky):
            raise ValueError(f"`sticky` must be the name of a request header, such as X-User-Id, not {self.sticky!r}")


class ShadowConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version that computes a part of the answered requests once more, after their answers have gone.

    percent: how large that part is. cpu_share: how much of one core each worker may spend on it, as a fraction.
    since: as for the canary.
    """

    version: int
    percent: Percent
    cpu_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.05
    since: datetime | None = None


class RulesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a canary or shadow is ready to be promoted, and when it fails.

    rows: how many rows are compared at least. flips: the largest share of rows with another label. p99_ratio: the 99 %
    quantile of its latency, divided by that of the version that answers. errors: the largest share of requests that
    fail. delta: the 99 % quantile of the absolute difference of a number; None judges no numbers.
    """

    rows: Annotated[int, msgspec.Meta(ge=1)] = 20_000
    flips: Share = 0.002
    p99_ratio: Annotated[float, msgspec.Meta(gt=0)] = 1.3
    errors: Share = 0.01
    delta: Annotated[float, msgspec.Meta(ge=0)] | None = None


def candidates(canary: CanaryConfig | None, shadow: ShadowConfig | None) -> Mapping[str, int]:
    """Return the versions that are tried: by `canary` and `shadow`, without what is not there."""
    tried = {"canary": canary, "shadow": shadow}
    return {kind: config.version for kind, config in tried.items() if config is not None}
