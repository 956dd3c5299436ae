"""What each worker slot has answered. `/metrics` has the sums over all slots; the list of workers shows them apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from tableside.telemetry.metric_entries import DamagedFile, entries, read
from tableside.telemetry.metric_heads import HEAD_BYTES

REQUESTS = "tableside_requests_total"
_KEY_START = b'["tableside_requests",'
"""How the key of each sample of the counter begins: a JSON list with the metric's name first."""


class SlotCounts(NamedTuple):
    """Predictions that the workers of a slot have answered since the stack was started, one after another.

    client_errors, server_errors: those of them with status 4xx, and with status 500 and above.
    """

    requests: int
    client_errors: int
    server_errors: int


def of_slot(folder: Path, slot: int) -> SlotCounts | None:
    """Return the counts of a slot; None if its metric file is missing or cannot be read.

    folder: of the metric files of all workers. Takes no lock, so a native thread may call it.
    """
    requests = client_errors = server_errors = 0.0
    try:
        content = read(folder / f"counter_{slot}.db")
        found = entries(content, HEAD_BYTES)
        for key, place in zip(found.keys, found.places.tolist(), strict=True):
            if not key.startswith(_KEY_START):
                continue
            _, name, labels, _ = json.loads(key)
            if name == REQUESTS:
                value = float(content.doubles[place])
                requests += value
                client_errors += value if "400" <= labels["code"] < "500" else 0
                server_errors += value if labels["code"] >= "500" else 0
    except (OSError, DamagedFile, ValueError, KeyError):
        return None
    return None if found.problem else SlotCounts(int(requests), int(client_errors), int(server_errors))
