"""The outcome of each request of a client, as it is kept in tests/data/clients/, and the page that shows them all."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tests.clients.tables import KINDS
from tests.training_environments import PROJECT

DATA = PROJECT / "tests" / "data" / "clients"
PAGE = PROJECT / "docs" / "reference" / "clients.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
EQUAL, MISREAD, NOT_SENT, DEFECT = "equal", "misread", "not sent", "defect"


class Outcome(msgspec.Struct, omit_defaults=True):
    """One request.

    outcome: `equal`; `misread`, where the answer was equal and the client read something else; `400` and other
    statuses, with `reason`, the server's error; `not sent`, with the client's own error; or `defect`. model: whose
    table it holds. path, headers, body (base64): the request. Nothing of it is kept where the client sent none, or did
    not go through the recorder.
    """

    spelling: str
    kind: str
    outcome: str
    reason: str = ""
    model: str = ""
    path: str = ""
    headers: list[tuple[str, str]] = []
    body: str = ""

    @property
    def content(self) -> bytes:
        """The body as it was sent."""
        return base64.b64decode(self.body)


class Seen(msgspec.Struct):
    """All outcomes of a client."""

    client: str
    version: str
    outcomes: list[Outcome]


def numbers_in(kind: str, answer: bytes, json_length: int) -> list[float]:
    """The numbers of an answer in any format. json_length: of a V2 answer with raw tensors."""
    kind = kind.partition(";")[0]
    if kind == "text/csv":
        return [float(row[0]) for row in csv.reader(io.StringIO(answer.decode()))]
    if kind == "application/x-npy":
        return [float(each) for each in np.load(io.BytesIO(answer), allow_pickle=False).ravel()]
    if kind == "application/octet-stream":
        return [float(each) for each in np.frombuffer(answer[json_length:], dtype="<f8")]
    if kind == "application/json":
        return [_flat(each) for each in _rows(json.loads(answer))]
    return [_flat(json.loads(line)) for line in answer.decode().splitlines()]


def _rows(content: Any) -> Any:
    rows = content.get("predictions", content.get("outputs")) if isinstance(content, dict) else content
    return rows[0]["data"] if isinstance(rows[0], dict) else rows


def _flat(cell: Any) -> float:
    return float(cell[0] if isinstance(cell, list) else cell)


def file_of(client: str) -> Path:
    """Where the outcomes of a client are kept."""
    return DATA / f"{re.sub('[^a-z0-9]+', '-', client.lower())}.json"


def write(seen: Seen) -> None:
    """Keep the outcomes of a client."""
    DATA.mkdir(parents=True, exist_ok=True)
    file_of(seen.client).write_text(json.dumps(msgspec.to_builtins(seen), indent=1) + "\n")


def kept() -> list[Seen]:
    """The outcomes of all clients, in the order of their files."""
    return [msgspec.json.decode(path.read_bytes(), type=Seen) for path in sorted(DATA.glob("*.json"))]


def table(clients: Iterable[Seen]) -> str:
    """The table of client, spelling and kind of value, as Markdown, with the reasons below it."""
    kinds = [*KINDS]
    lines = [f"| client | spelling | {' | '.join(kinds)} |", f"|---|---|{'---|' * len(kinds)}"]
    notes: dict[str, int] = {}
    for seen in clients:
        spellings = dict.fromkeys(each.spelling for each in seen.outcomes)
        for spelling in spellings:
            found = {each.kind: each for each in seen.outcomes if each.spelling == spelling}
            cells = [_cell(found.get(kind), notes) for kind in kinds]
            lines.append(f"| {seen.client} {seen.version} | {spelling} | {' | '.join(cells)} |")
    lines += ["", *(f"{number}. {_plain(note)}" for note, number in notes.items())]
    return "\n".join(lines) + "\n"


def _cell(outcome: Outcome | None, notes: dict[str, int]) -> str:
    if outcome is None:
        return ""
    if outcome.outcome == EQUAL:
        return EQUAL
    return f"{outcome.outcome} ({notes.setdefault(outcome.reason, len(notes) + 1)})"


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def write_page(clients: Sequence[Seen]) -> None:
    """Put the table into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + table(clients) + END + rest.partition(END)[2])
