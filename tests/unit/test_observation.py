"""What the web keeper sees of each instance: its processes, and what its workers report."""

from __future__ import annotations

from pathlib import Path

from tableside.deployment.instances import Instance
from tableside.deployment.observation import lost_versions, observe
from tableside.deployment.succession import Seen
from tableside.process import worker_slots
from tableside.process.process_table import Process

MASTER, WORKER = Process(10, 1), Process(11, 2)


def report(folder: Path, instance: str, *versions: tuple[str, str], **more: object) -> worker_slots.WorkerSlot:
    """Write the status of a worker. versions: the name of a model and its state."""
    slot = worker_slots.acquire(folder / "worker_slots")
    models = [
        {"name": name, "version": 1, "state": state, "reason": f"{state} here", "failure_kind": "crashed"}
        for name, state in versions
    ]
    slot.write_status({"pid": 1, "instance_id": instance, "models": models, **more})
    return slot


def test_workers_count_for_their_own_instance(tmp_path: Path) -> None:
    """An instance is as ready as its own workers say; a status file that cannot be read counts for nothing."""
    slots = [
        report(tmp_path, "a", ("m", "READY"), ("n", "LOADING"), ready=False, instance_size=2),
        report(tmp_path, "b", ("m", "READY"), ("n", "READY"), ready=True, instance_size=2),
        report(tmp_path, "b", ("m", "READY"), ("n", "UNAVAILABLE"), ready=True, instance_size=2),
        report(tmp_path, "b", ready="perhaps"),
        report(tmp_path, "", ("m", "READY"), ready=True),
    ]
    found = {
        "a": Instance("a", "", MASTER, (WORKER,)),
        "b": Instance("b", "", None, (WORKER,)),
        "c": Instance("c", "", MASTER, ()),
    }
    assert observe(tmp_path, found) == {
        "a": Seen(True, 0, 2, 2),
        "b": Seen(False, 2, 2, 8),
        "c": Seen(True, 0, 0, 0),
    }
    for slot in slots:
        slot.release()


def test_a_version_is_lost_if_it_was_served_and_cannot_be_now(tmp_path: Path) -> None:
    """A version that was removed, one that was never served and one that still loads are not lost."""
    slots = [
        report(tmp_path, "a", ("kept", "READY"), ("lost", "READY"), ("removed", "READY"), ("never", "UNAVAILABLE")),
        report(tmp_path, "b", ("kept", "READY"), ("lost", "UNAVAILABLE"), ("never", "UNAVAILABLE"), ("new", "READY")),
    ]
    assert lost_versions(tmp_path, "b") == ["lost/1 (UNAVAILABLE here)"]
    assert lost_versions(tmp_path, "b", ("timeout", "crashed")) == ["lost/1 (UNAVAILABLE here)"]
    assert lost_versions(tmp_path, "b", ("timeout",)) == []
    assert lost_versions(tmp_path, "none") == []
    for slot in slots:
        slot.release()
