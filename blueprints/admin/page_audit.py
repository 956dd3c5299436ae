"""The last changes for the status page: one entry for each change, of the two lines that the audit log has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_OUTCOMES = {"done": ("done", "good"), "failed": ("failed", "bad"), "begun": ("begun, no end recorded", "busy")}


@dataclass(frozen=True)
class Change:
    """A change. kind: a class of the style sheet."""

    time: str
    who: str
    what: str
    details: str
    outcome: str
    kind: str


def changes(lines: Sequence[Mapping[str, object]]) -> list[Change]:
    """Return the changes that lines of the audit log tell of, the newest first. Sign-ins change nothing."""
    found: list[Change] = []
    ended: list[tuple[str, ...]] = []
    for line in reversed(lines):
        if line.get("event") in ("sign_in", "sign_out"):
            continue
        state, which = str(line.get("state", "")), tuple(str(line.get(name, "")) for name in _SAME)
        if state != "begun":
            ended.append(which)
        elif which in ended:
            ended.remove(which)
            continue
        found.append(_change(line, state))
    return found


_SAME = ("event", "model", "name", "key", "who", "request_id")
"""What the two lines of a change have in common."""


def _change(line: Mapping[str, object], state: str) -> Change:
    text = {name: str(value) for name, value in line.items() if value is not None}
    version = f"/{text['version']}" if "version" in text else ""
    what = f"{text.get('event', '').replace('_', ' ')} {text.get('model', text.get('name', ''))}{version}".strip()
    before, after = text.get("before", ""), text.get("after", "")
    details = f"{before} → {after}" if before and after and before != after else after or before
    outcome, kind = _OUTCOMES.get(state, (state, "busy"))
    return Change(
        text.get("time", "")[:19].replace("T", " "), text.get("key") or text.get("who") or "not known", what,
        "; ".join(filter(None, (details, text.get("reason", "")))), outcome, kind,
    )  # fmt: skip
