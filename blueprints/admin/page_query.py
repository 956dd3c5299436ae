"""What the query of the status page's URL asks for. A value that makes no sense counts as none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlencode

REFRESH_S = (0, 10, 60)
"""How often the page may load itself again; 0 means never, which is the default."""
MOST_CHARACTERS = 100


@dataclass(frozen=True)
class PageQuery:
    """text: what the names of the models have in them. only_problems: whether others are left out. page: from 1 on."""

    text: str = ""
    only_problems: bool = False
    page: int = 1
    refresh_s: int = 0

    @classmethod
    def of(cls, args: Mapping[str, str]) -> PageQuery:
        """Return what the parameters `q`, `show`, `page` and `refresh` say."""
        page, refresh_s = (_whole_number(args.get(name, "")) for name in ("page", "refresh"))
        return cls(
            args.get("q", "").strip()[:MOST_CHARACTERS], args.get("show") == "problems", max(page, 1),
            refresh_s if refresh_s in REFRESH_S else 0,
        )  # fmt: skip

    def url(self, **other: object) -> str:
        """Return the query of a link to the same page with other values, such as `?page=2`."""
        made = replace(self, **other)  # type: ignore[arg-type] # the fields above
        given = {
            "q": made.text,
            "show": "problems" if made.only_problems else "",
            "page": made.page if made.page > 1 else "",
            "refresh": made.refresh_s or "",
        }
        return f"?{urlencode({name: value for name, value in given.items() if value})}"


def _whole_number(text: str) -> int:
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 7 else 0
