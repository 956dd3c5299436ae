"""The exporter holds nobody up, holds a bounded number of spans, and counts those that it drops."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tableside.errors import SettingsError
from tableside.telemetry import otlp, span_exporter
from tableside.telemetry.otlp_receiver import Outcome, Receiver, read_headers
from tableside.telemetry.span_exporter import SpanExporter
from tableside.telemetry.spans import Span, TracedRequest
from tests.span_receiver import SpanReceiver, receiving
from tests.waiting import wait_until


def request(trace: int, spans: int = 2) -> TracedRequest:
    now_ns = time.time_ns()
    return TracedRequest(trace, "", [Span(f"s{at}", at + 1, 0, now_ns, now_ns, {}) for at in range(spans)])


class Counted:
    """Remembers what was counted."""

    def __init__(self) -> None:
        self.all_sent = 0
        self.lost: Counter[str] = Counter()

    def sent(self, spans: int) -> None:
        self.all_sent += spans

    def dropped(self, reason: str, spans: int) -> None:
        self.lost[reason] += spans


def encode(requests: Sequence[TracedRequest]) -> bytes:
    return otlp.encode({"service.name": "test"}, requests)


class FakeReceiver:
    """A receiver that answers what `outcomes` says, the last one again and again. blocked: `send` waits for it."""

    name = "http://fake"

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.sent: list[bytes] = []
        self.blocked = threading.Event()
        self.blocked.set()
        self.is_closed = False

    def send(self, message: bytes) -> Outcome:
        self.sent.append(message)
        self.blocked.wait(30)
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]

    def close(self) -> None:
        self.is_closed = True


AWAY, BUSY, TAKEN = Outcome("ConnectionRefusedError", False), Outcome("status 429", False, 0.05), Outcome()


@contextmanager
def exporting(receiver: Any, most: int = 100, gather_s: float = 0.01, retry_s: float = 5) -> Iterator[Any]:
    counts = Counted()
    exporter = SpanExporter(receiver, encode, counts, most, gather_s, retry_s)
    exporter.start()
    yield exporter, counts
    exporter.stop(1)


@pytest.fixture
def receiver() -> Iterator[SpanReceiver]:
    with receiving() as started:
        yield started


def test_spans_arrive(receiver: SpanReceiver) -> None:
    """Many requests go in few messages, over one connection."""
    with exporting(Receiver(receiver.url, None, 5)) as (exporter, counts):
        for trace in range(1, 91):
            exporter.add(request(trace))
        assert wait_until(lambda: len(receiver.spans) == 180)
        exporter.add(request(1000))
        assert wait_until(lambda: counts.all_sent == 182)
    assert len({span.trace for span in receiver.spans}) == 91
    assert len(receiver.messages) < 20
    assert receiver.connections == 1
    assert not counts.lost


def test_the_queue_is_bounded() -> None:
    """While the receiver hangs, no more than the set number of requests waits; adding one more takes no time."""
    hanging = FakeReceiver(TAKEN)
    hanging.blocked.clear()
    with exporting(hanging, most=10) as (exporter, counts):
        exporter.add(request(1))
        assert wait_until(lambda: hanging.sent)
        for trace in range(2, 52):
            exporter.add(request(trace, spans=3))
        assert counts.lost == {"queue_full": 40 * 3}
        hanging.blocked.set()
        assert wait_until(lambda: counts.all_sent == 2 + 10 * 3)


def test_a_receiver_that_is_away_is_tried_again() -> None:
    """The same message is sent until it is taken; nothing is lost."""
    receiver = FakeReceiver(AWAY, BUSY, TAKEN)
    with exporting(receiver) as (exporter, counts):
        exporter.add(request(1))
        assert wait_until(lambda: counts.all_sent == 2)
    assert len(set(receiver.sent)) == 1
    assert len(receiver.sent) == 3
    assert not counts.lost


def test_a_receiver_that_stays_away_costs_its_message() -> None:
    """After a while the message is dropped, and the next one is tried."""
    with exporting(FakeReceiver(AWAY), retry_s=0.2) as (exporter, counts):
        exporter.add(request(1))
        assert wait_until(lambda: counts.lost == {"unreachable": 2})
        exporter.add(request(2))
        assert wait_until(lambda: counts.lost == {"unreachable": 4})


def test_a_final_answer_is_not_tried_again() -> None:
    """Another status than those that OTLP calls retryable drops the message at once."""
    receiver = FakeReceiver(Outcome("status 400"), TAKEN)
    with exporting(receiver) as (exporter, counts):
        exporter.add(request(1))
        assert wait_until(lambda: counts.lost == {"refused": 2})
    assert len(receiver.sent) == 1


def test_rejected_spans_are_counted() -> None:
    """A receiver may answer 200 and say that it did not take all."""
    with exporting(FakeReceiver(Outcome(rejected=otlp.Rejected(1, "too old")))) as (exporter, counts):
        exporter.add(request(1, spans=5))
        assert wait_until(lambda: counts.all_sent == 4)
        assert wait_until(lambda: counts.lost == {"rejected": 1})


def test_an_error_does_not_end_the_thread() -> None:
    """Spans that cannot be encoded are dropped; later ones are sent."""
    with exporting(FakeReceiver(TAKEN)) as (exporter, counts):
        exporter.add(TracedRequest(1 << 200, "", request(1).spans))
        assert wait_until(lambda: counts.lost == {"failed": 2})
        exporter.add(request(2))
        assert wait_until(lambda: counts.all_sent == 2)


def test_stop_sends_what_waits(receiver: SpanReceiver) -> None:
    """It does not wait until more has gathered. Later spans are dropped and counted."""
    with exporting(Receiver(receiver.url, None, 5), most=200, gather_s=60) as (exporter, counts):
        for trace in range(1, 131):
            exporter.add(request(trace))
        exporter.stop(10)
        assert len(receiver.spans) == 260
        exporter.add(request(500))
        assert counts.lost == {"stopped": 2}


def test_stop_is_bounded() -> None:
    """A receiver that hangs does not hold up the end of the process; what is left is counted."""
    hanging = FakeReceiver(TAKEN)
    hanging.blocked.clear()
    with exporting(hanging) as (exporter, counts):
        exporter.add(request(1))
        assert wait_until(lambda: hanging.sent)
        exporter.add(request(2))
        began_s = time.monotonic()
        exporter.stop(0.2)
        assert time.monotonic() - began_s < 20
        assert counts.lost == {"stopped": 2}
        hanging.blocked.set()


def test_stop_does_not_try_again() -> None:
    """A receiver that is away at the end gets one try of each message."""
    receiver = FakeReceiver(AWAY)
    with exporting(receiver, most=200, gather_s=60) as (exporter, counts):
        for trace in range(1, 101):
            exporter.add(request(trace))
        exporter.stop(10)
        assert counts.lost == {"unreachable": 200}
    assert len(receiver.sent) == 2
    assert receiver.is_closed


def test_drops_are_logged_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first drop has a line; those of the next minute are in one line."""
    lines: list[dict[str, Any]] = []

    class Log:
        def warning(self, event: str, **fields: Any) -> None:
            lines.append({"event": event, **fields})

    monkeypatch.setattr(span_exporter, "log", Log())
    with exporting(FakeReceiver(Outcome("status 400"))) as (exporter, counts):
        for trace in range(1, 21):
            exporter.add(request(trace))
            assert wait_until(lambda trace=trace: counts.lost["refused"] == 2 * trace)
    assert lines == [{"event": "spans_dropped", "receiver": "http://fake", "problem": "status 400", "refused": 2}]


@pytest.mark.no_greenlets
def test_a_host_without_threads_registers_one_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each traced request tries to start the thread again, and takes no memory for it."""
    registered: list[object] = []
    monkeypatch.setattr(span_exporter.atexit, "register", lambda *given: registered.append(given))

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without_threads:
        without_threads.setattr(span_exporter.threading.Thread, "start", refuse)
        exporter = SpanExporter(FakeReceiver(TAKEN), encode, Counted(), 100)
        for _ in range(3):
            exporter.start()
    exporter.start()
    exporter.stop(1)
    assert len(registered) == 1


@pytest.mark.no_greenlets  # a forked process would also have the greenlets of the receiver, and answer itself
def test_a_forked_process_sends_its_own_spans(receiver: SpanReceiver) -> None:
    """It has a thread and a queue of its own, and sends nothing that its parent sends."""
    with exporting(Receiver(receiver.url, None, 5), gather_s=0.3) as (exporter, counts):
        exporter.add(request(1))
        child = os.fork()
        if child == 0:
            exporter.start()
            exporter.add(request(2))
            exporter.stop(10)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert wait_until(lambda: len(receiver.spans) >= 4)
        exporter.stop(10)
    assert sorted(span.trace[-1] for span in receiver.spans) == ["1", "1", "2", "2"]


@pytest.mark.processes
def test_a_process_that_ends_sends_its_spans(receiver: SpanReceiver) -> None:
    """Servers other than gunicorn have no hook at the end of a worker."""
    code = (
        "import sys; from tests.unit.test_span_exporter import *\n"
        "exporter = SpanExporter(Receiver(sys.argv[1], None, 5), encode, Counted(), 10, gather_s=60)\n"
        "exporter.start(); exporter.add(request(1))\n"
    )
    project = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, receiver.url], cwd=project, timeout=120)
    assert done.returncode == 0
    assert len(receiver.spans) == 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((200, {}, 0), Outcome()),
        ((200, {}, 3), Outcome(rejected=otlp.Rejected(3, "too old"))),
        ((503, {"Retry-After": "7"}, 0), Outcome("status 503", False, 7.0)),
        ((429, {"Retry-After": "99999"}, 0), Outcome("status 429", False, 60.0)),
        ((429, {"Retry-After": "Fri, 27 Nov 2026 03:00:00 GMT"}, 0), Outcome("status 429", False)),
        ((400, {}, 0), Outcome("status 400", True)),
        ((404, {}, 0), Outcome("status 404", True)),
        ((500, {}, 0), Outcome("status 500", True)),
    ],
)
def test_what_an_answer_means(receiver: SpanReceiver, answer: Any, expected: Outcome) -> None:
    """429, 502, 503 and 504 may be tried again, after the time that the receiver asks for; no other status may."""
    receiver.answer = lambda at: answer
    with closing(Receiver(receiver.url, None, 5)) as sender:
        assert sender.send(encode([request(1)])) == expected


def test_a_connection_that_was_closed_is_opened_again() -> None:
    """A receiver that was restarted gets the next message at the first try."""
    with receiving() as first:
        sender = Receiver(first.url, None, 5)
        assert not sender.send(encode([request(1)])).problem
    with receiving(first.port) as second:
        assert not sender.send(encode([request(2)])).problem
    assert second.spans[0].trace == f"{2:032x}"
    sender.close()


def test_a_receiver_that_is_down_or_hangs_is_a_problem_and_no_error() -> None:
    """Both may be tried again: nothing listens, or nothing is answered within the time."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        refused = Receiver(address, None, 0.2).send(b"x")
        assert refused.problem.startswith("ConnectionRefusedError")
        assert not refused.is_final
        listening.listen(1)
        late = Receiver(address, None, 0.2).send(b"x")
        assert late.problem.startswith("TimeoutError")
        assert not late.is_final


def test_something_else_listens_there() -> None:
    """An answer that is not HTTP is a problem, too."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        found = Receiver(f"http://127.0.0.1:{listening.getsockname()[1]}", None, 5).send(b"x")
        thread.join()
        assert found.problem.startswith("BadStatusLine")


def test_headers_are_sent_and_read_again(receiver: SpanReceiver, tmp_path: Path) -> None:
    """A key that was renewed in the file counts for the next message. The endpoint's own path is kept."""
    file = tmp_path / "headers"
    private(file, "# of the collector\nAuthorization: Bearer one\n\nX-Scope-OrgID: a\n")
    sender = Receiver(receiver.url, file, 5)
    assert not sender.send(encode([request(1)])).problem
    private(file, "Authorization: Bearer two\n")
    assert not sender.send(encode([request(1)])).problem
    assert [message["authorization"] for message in receiver.messages] == ["Bearer one", "Bearer two"]
    assert receiver.messages[0]["x-scope-orgid"] == "a"
    file.unlink()
    assert "cannot read" in sender.send(encode([request(1)])).problem
    sender.close()


def private(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o600)


def line_number(file: Path) -> None:
    private(file, "A: b\nno header\n")


def others_read_it(file: Path) -> None:
    file.write_text("A: b\n")
    file.chmod(0o644)


def not_there(file: Path) -> None:
    """Leave it out."""


def not_ascii(file: Path) -> None:
    private(file, "A: é\n")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (line_number, "line 2 of"),
        (others_read_it, "chmod 600"),
        (not_there, "cannot read"),
        (not_ascii, "cannot read"),
    ],
)
def test_a_headers_file_that_cannot_be_used(make: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    """The error names the setting, and never quotes the file."""
    file = tmp_path / "headers"
    make(file)
    with pytest.raises(SettingsError, match="tracing.headers_file") as raised:
        read_headers(file)
    assert said in str(raised.value)
    assert "no header" not in str(raised.value)
