"""A hundred thousand rows in each format are answered correctly in bounded memory; larger bodies are rejected."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.many_rows import ask, bodies, make_table, memory, worker_pid
from tableside.publishing.publish import publish
from tests.e2e.conftest import Stack

MOST_BYTES = 450_000_000
"""Peak of the worker above idle; docs/reference/tables.md has what was measured for each format."""

MOST_BODY = 2**27
MOST_INFLATED = 2**28


@pytest.fixture(scope="module")
def wide() -> tuple[Any, Any]:
    return make_table()


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack], wide: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root: Path = tmp_path_factory.mktemp("wide")
    publish("wide", wide[1], wide[0][:200], repository=root)
    stack = make_stack(
        TABLESIDE__REPOSITORY__PATH=str(root),
        TABLESIDE__SERVER__WORKERS="1",
        TABLESIDE__SERVER__MAX_BODY_BYTES=str(MOST_BODY),
        TABLESIDE__SERVER__MAX_INFLATED_BYTES=str(MOST_INFLATED),
        TABLESIDE__SERVER__MAX_INFLATION="100000",  # so that max_inflated_bytes is the limit of a bomb
    )
    yield stack
    stack.stop()


def test_every_format_within_its_memory(stack: Stack, wide: Any) -> None:
    """In every format the answers equal the model's own, and the worker's peak memory stays below MOST_BYTES."""
    table, model = wide
    expected = model.predict(table)
    worker = worker_pid(stack.run_dir)
    idle = memory(worker, "VmRSS")
    for name, path, body, headers in bodies(table):
        found = ask(f"http://127.0.0.1:{stack.data}{path}", worker, idle, name, body, headers)
        assert (found.answers == expected).all(), name
        assert found.peak_bytes < MOST_BYTES, (name, found.peak_bytes)
    assert worker_pid(stack.run_dir) == worker


def test_a_body_too_large_names_its_setting(stack: Stack) -> None:
    """nginx rejects a body above server.max_body_bytes with 413 and the setting's name and value."""
    status, content, _ = stack.call("/v1/models/wide:predict", b"0" * (MOST_BODY + 1))
    assert status == 413
    assert "server.max_body_bytes" in content["error"]
    assert content["max_bytes"] == MOST_BODY


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_refused_at_the_cap(stack: Stack, encoding: str) -> None:
    """A small body that inflates past server.max_inflated_bytes is 413, and memory stays near that limit."""
    zeros = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    bomb = b"".join(zeros.compress(bytes(2**24)) for _ in range(64)) + zeros.flush()
    worker = worker_pid(stack.run_dir)
    before = memory(worker, "VmRSS")
    Path(f"/proc/{worker}/clear_refs").write_text("5")
    status, content, _ = stack.call("/v1/models/wide:predict", bomb, headers={"Content-Encoding": encoding})
    assert status == 413, content
    assert "server.max_inflated_bytes" in content["error"]
    assert memory(worker, "VmHWM") - before < 3 * MOST_INFLATED
    assert worker_pid(stack.run_dir) == worker


def test_a_cut_body_is_400(stack: Stack) -> None:
    """Compressed data that ends early is a 400 whose message says so."""
    cut = gzip.compress(b'{"instances": []}' * 50)[:-12]
    status, content, _ = stack.call("/v1/models/wide:predict", cut, headers={"Content-Encoding": "gzip"})
    assert status == 400
    assert "ends early" in content["error"]
