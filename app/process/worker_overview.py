"""What an operator wants to know of each worker of a host, beside the models that it serves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from tableside.process import process_table
from tableside.process.hand_file import Pulse

Status = Mapping[str, object]


def rows(statuses: Iterable[Status], pulses: Mapping[int, Pulse], now: datetime) -> list[dict[str, object]]:
    """Return one row for each worker: the status with age, processor time, memory, requests in hand and lag.

    pulses: by worker slot. What cannot be known is null.
    """
    return [_row(status, pulses, now) for status in statuses]


def _row(status: Status, pulses: Mapping[int, Pulse], now: datetime) -> dict[str, object]:
    pid, slot = status.get("pid"), status.get("worker_slot")
    pulse = pulses.get(slot) if isinstance(slot, int) else None
    more: dict[str, object] = {
        "age_s": _age_s(status.get("started_at"), now),
        "cpu_s": process_table.cpu_s(pid) if isinstance(pid, int) else None,
        "pss_bytes": pss_bytes(pid) if isinstance(pid, int) else None,
        "in_flight": pulse.in_hand if pulse is not None else None,
        "hub_lag_s": pulse.lag_s(now.timestamp()) if pulse is not None else None,
    }
    return {**status, **more}


def _age_s(started_at: object, now: datetime) -> float | None:
    try:
        return round((now - datetime.fromisoformat(str(started_at)).astimezone(UTC)).total_seconds(), 1)
    except ValueError:
        return None


def pss_bytes(pid: int) -> int | None:
    """Return the memory of a process, with its share of what it shares with others; None if it cannot be read."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None
