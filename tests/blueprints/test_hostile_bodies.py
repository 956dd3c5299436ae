"""No body takes more than 50 times its size and 64 MB of memory, or holds the event loop up for 100 ms."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings

from tests.hostile.bodies import JSON, hostile_requests
from tests.hostile.probe import PEAK_RATIO, Probe, Taken, problem, too_much
from tests.spellings import HEADER, INVOKE, V1, V2, Request

pytestmark = [pytest.mark.processes, pytest.mark.slow]
GZIP, CSV = {"Content-Encoding": "gzip"}, {"Content-Type": "text/csv"}


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    with Probe(tmp_path_factory.mktemp("run")) as process:
        yield process


@settings(max_examples=40, phases=(Phase.generate, Phase.shrink))
@given(sent=hostile_requests())
def test_a_hostile_body_pays_for_what_it_makes_us_do(probe: Probe, sent: tuple[str, Request]) -> None:
    """Bodies of every format, compressed or not: nested, repeated, wide, of nulls, of huge dictionaries and numbers."""
    model, request = sent
    found, taken = problem(probe, request, model)
    assert not found, (taken, model, request.path, request.headers, request.body[:100])


def padded(body: bytes, size: int) -> bytes:
    """Return `body` as a gzip file that a comment in its header makes `size` bytes long."""
    packed = gzip.compress(body)
    comment = b"x" * max(0, size - len(packed) - 1) + b"\0"
    return packed[:3] + bytes((16,)) + packed[4:10] + comment + packed[10:]


def binary(datatype: str, cell: bytes, rows: int, names: list[str]) -> tuple[bytes, str]:
    """A V2 request of raw tensors of equal cells, and the length of its JSON."""
    tensor = {"shape": [rows], "datatype": datatype, "parameters": {"binary_data_size": rows * len(cell)}}
    head = json.dumps({"inputs": [{"name": name, **tensor} for name in names]}).encode()
    return head + cell * rows * len(names), str(len(head))


WORDS = [f"t{at}" for at in range(7)]
TEXTS, TEXTS_AT = binary("BYTES", b"\2\0\0\0ab", 400_000, WORDS)
FLAGS, FLAGS_AT = binary("UINT8", b"\1", 80_000, [f"w{at}" for at in range(300)])
FOUND: dict[str, tuple[str, Request]] = {
    "short texts in JSON": (
        "numbers", Request(INVOKE, gzip.compress(b"[" + b'"a",' * 1_500_000 + b'"a"]'), JSON | GZIP)
    ),
    "short lists in JSON": (
        "level", Request(V1, gzip.compress(b'{"instances":[' + b"[1]," * 520_000 + b"[1]]}"), JSON | GZIP),
    ),
    "texts and dates in CSV": (
        "mixed",
        Request(
            INVOKE,
            padded(b"real,count,word,shade,level,flag,day\n" + b",,a,red,1,1,2020-01-01\n" * 300_000, 290_000),
            CSV | GZIP,
        ),
    ),
    "one field of quotes in CSV": (
        "words",
        Request(INVOKE, gzip.compress(b"t0,t1,t2,t3,t4,t5,t6\n" + b'"' * 12_000_000), CSV | GZIP),
    ),
    "one field of lines in CSV": (
        "words", Request(INVOKE, gzip.compress(b'"' + b"\n" * 2_500_000), CSV | GZIP),
    ),
    "raw texts": ("words", Request(V2, padded(TEXTS, 290_000), {HEADER: TEXTS_AT, **GZIP})),
    "raw bytes": ("wide", Request(V2, padded(FLAGS, 290_000), {HEADER: FLAGS_AT, **GZIP})),
}  # fmt: skip
"""What the generator and `make fuzz` have found; each took too much memory, or held the interpreter's lock too long."""


@pytest.mark.parametrize("name", FOUND)
def test_bodies_that_were_found(probe: Probe, name: str) -> None:
    """Each is refused with the setting that allows it."""
    model, request = FOUND[name]
    found, taken = problem(probe, request, model)
    assert (found, taken.status) == ("", 413), taken
    assert "server.max_inflation" in taken.start


def test_what_counts_as_too_much() -> None:
    """A measurement is judged by its status, its memory and its longest stall."""
    allowed = PEAK_RATIO * 10 + (64 << 20)
    assert too_much(Taken(200, "", 9.0, 0.1, allowed), bytes(10)) == ""
    assert "peak memory" in too_much(Taken(200, "", 0.0, 0.0, allowed + 1), bytes(10))
    assert "stood still for 101 ms" in too_much(Taken(400, "", 0.0, 0.101, 0), b"")
    assert "status 500" in too_much(Taken(500, ""), b"")
    assert "died" in too_much(Taken(0, "the process died: -11"), b"")


def test_a_request_that_ends_the_process_is_found(tmp_path: Path) -> None:
    """A process that dies is reported with how it ended, and the next request gets a new one."""
    with Probe(tmp_path) as probe:
        assert probe.send(Request("/v1/models", b""), "numbers").status == 405
        process = probe.process()
        process.kill()
        process.wait()
        assert probe.send(Request("/v1/models", b""), "numbers") == Taken(0, "the process died: -9")
        assert probe.send(Request("/v1/models", b""), "numbers").status == 405
