"""The file of requests in hand, and what is read from it after a worker has died in one way or another."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tableside.process import deaths, process_table, settling, suspects
from tableside.process.deaths import Cause
from tableside.process.hand_file import ENTRIES, SLOTS, Entry, HandFile, Holder, State
from tableside.process.process_table import Process
from tableside.process.worker_hand import WorkerHand

pytestmark = pytest.mark.no_greenlets
KEEP_S = 600.0
WORKER = """
import ctypes, os, signal, sys
from pathlib import Path
from tableside.process import deaths
from tableside.process.worker_hand import WorkerHand
run_dir, ending = Path(sys.argv[1]), sys.argv[2]
signal.signal(signal.SIGABRT, lambda *_: sys.exit(1))  # as gunicorn does
hand = WorkerHand()
hand.attach(run_dir, 3, 600.0)
deaths.record_faults(deaths.fault_file(run_dir / "in_hand", 3))
hand.beat()
first = hand.hold(hand.digest("/a", b"[1]"), "first", "iris/1", False, 1e18)
second = hand.hold(hand.digest("/a", b"[2]"), "second", "iris/1", False, 1e18)
third = hand.hold(hand.digest("/a", b"[3]"), "third", "iris/1", False, 1e18)
second.waits()
third.end()
def magic_row():
    if ending == "null": ctypes.string_at(0)
    if ending == "abort": os.abort()
    if ending == "bus":
        import mmap
        with open(run_dir / "short", "w+b") as file:
            file.truncate(4096)
            view = mmap.mmap(file.fileno(), 4096)
            file.truncate(0)
            view[0]
    if ending == "memory":
        (run_dir / "vmstat").write_text("pgfault 1\\noom_kill 8\\n")
        os.kill(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), getattr(signal, ending, 0))
magic_row()
"""


def died(run_dir: Path, ending: str) -> settling.Settled | None:
    """Let a process die in this way with requests in hand. Return what is settled afterwards."""
    (run_dir / "vmstat").write_text("pgfault 1\noom_kill 7\nfoo_oom_kill 9\n")
    environ = {**os.environ, deaths.VMSTAT_VARIABLE: str(run_dir / "vmstat")}
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(run_dir), ending], env=environ, capture_output=True, timeout=60, check=False
    )
    assert done.stderr == b""
    file = HandFile(run_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(deaths.VMSTAT_VARIABLE, str(run_dir / "vmstat"))
        settled = settling.settle(file, 3, KEEP_S)
    assert settling.settle(file, 3, KEEP_S) is None  # whoever comes second finds nothing left
    assert not file.entries(3)
    file.close()
    return settled


@pytest.mark.parametrize(
    ("ending", "cause", "detail"),
    [
        ("null", Cause.FAULT, "Segmentation fault in string_at ("),
        ("abort", Cause.FAULT, "Aborted in magic_row (<string>:"),
        ("bus", Cause.FAULT, "Bus error in magic_row ("),
        ("SIGABRT", Cause.FAULT, "Aborted in magic_row ("),  # gunicorn's, after the heartbeat's timeout
        ("memory", Cause.MEMORY, "the OOM killer"),
        ("SIGKILL", None, ""),  # an operator's
        ("SIGTERM", None, ""),
    ],
)
def test_the_death_of_a_worker_tells_what_it_had_in_hand(
    tmp_path: Path, ending: str, cause: Cause | None, detail: str
) -> None:
    """After a fault, a timeout or the OOM killer the requests that were computed are suspects; after a signal not."""
    settled = died(tmp_path, ending)
    assert settled is not None
    assert settled.death.cause == cause
    assert settled.death.detail.startswith(detail)
    assert [(each.request_id, each.model) for each in settled.suspects] == ([("first", "iris/1")] if cause else [])
    said = settling.lines(settled)
    assert len(said) == (2 if cause else 0)
    assert all(str(settled.pid) in line or "digest" in line for line in said)
    hand = WorkerHand()
    hand.attach(tmp_path, 5, KEEP_S)
    assert (hand.look_up(hand.digest("/a", b"[1]"), "other", 0.0) is not None) == (cause is not None)
    assert hand.look_up(hand.digest("/a", b"[2]"), "other", 0.0) is None
    assert hand.look_up(hand.digest("/b", b"[1]"), "other", 0.0) is None


def test_a_repeated_request_tells_of_a_death_that_nobody_has_settled(tmp_path: Path) -> None:
    """nginx may repeat a request before gunicorn's master knows of the death: its id is in the dead worker's slot."""
    run = [sys.executable, "-c", WORKER, str(tmp_path), "null"]
    assert subprocess.run(run, timeout=60, check=False).returncode < 0
    hand = WorkerHand()
    file = HandFile(tmp_path)
    file.take(4, Holder(os.getpid(), process_table.started(os.getpid()), 0))
    alive = file.put(4, file.digest("/a", b"[9]"), "alive", "iris/1", False, 0.0)
    hand._file, hand._slot, hand._keep_s = file, 5, KEEP_S
    digest = hand.digest("/a", b"[1]")
    assert hand.look_up(digest, "first", 0.0) is None  # it was not repeated: it has not waited
    found = hand.look_up(digest, "first", 0.5)
    assert found is not None
    assert (found.request_id, found.is_quarantined) == ("first", False)
    assert [each.death.cause for each in hand.settled] == [Cause.FAULT]
    assert hand.look_up(hand.digest("/a", b"[9]"), "alive", 0.5) is None  # that worker lives
    assert file.entries(4)[0].state is State.COMPUTING
    file.forget(4, alive)
    assert not file.entries(4)


class WatchedFile(HandFile):
    """Notes what others can read at the moment in which a slot is freed."""

    readable: tuple[int, bytes] = (0, b"")

    def free(self, slot: int) -> None:
        self.readable = self.read_ledger()
        super().free(slot)


def test_a_slot_is_freed_when_the_ledger_has_its_requests(tmp_path: Path) -> None:
    """Otherwise a worker that gets the request between the two finds it nowhere, and dies of it on its event loop."""
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), "null"])
    process.wait(60)
    file = WatchedFile(tmp_path)
    assert settling.settle(file, 3, KEEP_S) is not None
    version, text = file.readable
    assert version % 2 == 0
    assert [each.request_id for each in suspects.parse(text).suspects] == ["first"]
    file.close()


def test_a_repeated_request_waits_for_the_writer_of_the_ledger(tmp_path: Path) -> None:
    """A worker that is told of a death while another process writes it down does not go on without the news."""
    hand, file = WorkerHand(), HandFile(tmp_path)
    hand.attach(tmp_path, 0, KEEP_S)
    digest = hand.digest("/a", b"[1]")
    blamed = [Entry(State.COMPUTING, False, 0.0, digest.hex(), "first", "iris/1")]
    text = suspects.encode(suspects.blame(suspects.Ledger(), blamed, time.time(), KEEP_S)[0])
    writes, may_end = threading.Event(), threading.Event()

    def begin(before: bytes) -> bytes:
        file._words[4] |= 1
        writes.set()
        may_end.wait(0.1)
        return text

    writer = threading.Thread(target=file.update_ledger, args=(begin,))
    writer.start()
    assert writes.wait(60)
    found = hand.look_up(digest, "first", 9.0)
    writer.join()
    assert found is not None
    assert found.request_id == "first"


def test_entries_are_bounded_and_independent(tmp_path: Path) -> None:
    """Many requests fit; one without a place is not recorded; slots do not touch each other."""
    file = HandFile(tmp_path)
    for slot in (0, SLOTS - 1):
        file.take(slot, Holder(1, 1, 0))
    places = [file.put(0, bytes(16), f"request-{at}", "m/1", False, 1.0) for at in range(ENTRIES + 1)]
    assert len(set(places)) == ENTRIES + 1
    assert places[-1] == 0
    assert len(file.entries(0)) == ENTRIES
    assert not file.entries(SLOTS - 1)
    assert sorted(file.slots()) == [0, SLOTS - 1]
    long = file.put(SLOTS - 1, b"\1" * 16, "i" * 128, "n" * 100 + "/12345678901", True, 1.5)
    entry = file.entries(SLOTS - 1)[0]
    assert long
    assert (entry.request_id, entry.model, entry.alone) == ("i" * 48, "n" * 100 + "/12345678901", True)
    file.beat(0, 12, 1000.0)
    assert file.holder(0) == Holder(1, 1, 12)
    assert file.find("i" * 128, 0) == [SLOTS - 1]
    file.free(0)
    assert file.holder(0) is None
    file.close()


def test_all_openings_of_the_file_agree(tmp_path: Path) -> None:
    """They have the same key, see each other's ledger by its version, and recover from a writer that died."""
    first, second = HandFile(tmp_path), HandFile(tmp_path)
    assert first.digest("/a", b"x") == second.digest("/a", b"x") != second.digest("/a", b"y")
    before = second.version
    assert first.update_ledger(lambda text: text + b"abc")
    assert second.version != before
    assert second.read_ledger() == (second.version, b"abc")
    assert first.update_ledger(lambda text: None)
    first._words[4] |= 1  # a process that died while it wrote
    assert second.read_ledger()[0] % 2 == 1
    assert second.update_ledger(lambda text: b"new")
    assert first.read_ledger() == (first.version, b"new")
    assert first.version % 2 == 0
    assert not first.update_ledger(lambda text: bytes(1 << 20))
    other = HandFile(tmp_path / "other")
    assert other.digest("/a", b"x") != first.digest("/a", b"x")


def test_a_process_that_ends_is_recognized() -> None:
    """This process lives; one with its pid and another start, and one that has ended, do not."""
    me = Process(os.getpid(), process_table.started(os.getpid()))
    assert not process_table.is_ending(me)
    assert process_table.is_ending(Process(me.pid, me.started + 1))
    child = subprocess.Popen([sys.executable, "-c", ""])
    ended = Process(child.pid, process_table.started(child.pid))
    child.wait(60)
    assert process_table.is_ending(ended)


def test_a_hung_call_is_blamed_once_and_its_late_end_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request whose call goes on after its answer stays in hand until the call ends, or is blamed."""
    hand = WorkerHand()
    hand.attach(tmp_path, 0, KEEP_S)
    late, hung = (hand.hold(hand.digest("/a", name.encode()), name, "m/1", False, 1e18) for name in ("late", "hung"))
    assert late
    assert hung
    hung.alone = True
    for held in (late, hung):
        held.leave_behind()
        held.end()
    assert not hand.blame_hung()
    late.call_ended()
    monkeypatch.setattr("tableside.process.worker_hand.HUNG_AFTER_S", 0.0)
    settled = hand.blame_hung()
    assert [(each.death.cause, each.suspects[0].is_quarantined) for each in settled] == [(Cause.HUNG, True)]
    assert not hand.blame_hung()
    hung.call_ended()
    found = hand.look_up(hung.digest, "x", 0.0)
    assert found is not None
    assert found.is_quarantined
    assert hand.look_up(late.digest, "x", 0.0) is None


def test_without_a_quarantine_nothing_is_recorded(tmp_path: Path) -> None:
    """With server.quarantine_s = 0, or in a slot beyond the last, requests are held without a record."""
    for slot, keep_s in ((0, 0.0), (SLOTS, 600.0)):
        hand = WorkerHand()
        hand.attach(tmp_path, slot, keep_s)
        assert hand.digest("/a", b"x") == b""
        assert hand.look_up(b"", "a", 1.0) is None
        held = hand.hold(b"", "a", "m/1", False, 1e18)
        assert held
        held.waits()
        held.end()
    assert not (tmp_path / "in_hand").exists()
    assert suspects.model_name("m/1") == "m"
