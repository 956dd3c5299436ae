"""Both workers of a real stack map the same file of a forest and give the estimator's answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.memory import make_forest
from tableside.publishing.publish import publish
from tests.e2e.conftest import Stack, until


@pytest.fixture(scope="module")
def forest() -> tuple[Any, Any]:
    """A forest of about 20 MB, and rows for it."""
    return make_forest(20, samples=20_000)


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack], forest: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root: Path = tmp_path_factory.mktemp("forest")
    publish("forest", forest[0], forest[1][:200], repository=root)
    stack = make_stack(
        TABLESIDE__REPOSITORY__PATH=str(root),
        TABLESIDE__REPOSITORY__SHARED_MEMORY_ABOVE_MB="10",
        TABLESIDE__SERVER__WORKERS="2",
        TABLESIDE__LOG__FORMAT="json",
    )
    yield stack
    stack.stop()


def pids(stack: Stack) -> list[int]:
    return [int(worker["pid"]) for worker in stack.admin_call("/admin/api/workers")["workers"]]


def mapped(pid: int) -> set[tuple[str, str]]:
    """Return (inode, permissions) of the files of nodes that the process maps."""
    lines = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    return {(line[4], line[1]) for line in lines if line[-1].endswith("records.npy")}


def ask(stack: Stack, rows: Any) -> tuple[int, Any]:
    status, content, _ = stack.call("/v2/models/forest/infer", {"inputs": [
        {"name": "input-0", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
    ], "outputs": [{"name": "predict_proba"}]})  # fmt: skip
    return status, content


def test_two_workers_map_one_file_and_answer_from_it(stack: Stack, forest: Any) -> None:
    """Both workers map the same inode read-only; probabilities stay equal, also after a rejected request."""
    fitted, table = forest
    stack.wait_loaded()
    both = pids(stack)
    assert len(both) == 2
    assert until(lambda: all(mapped(pid) for pid in both))
    found = [mapped(pid) for pid in both]
    assert found[0] == found[1]
    assert {permissions for _, permissions in found[0]} == {"r--s"}
    expected = fitted.set_params(n_jobs=1).predict_proba(table[:50]).ravel().tolist()
    for _ in range(8):
        status, content = ask(stack, table[:50])
        assert (status, content["outputs"][0]["data"]) == (200, expected)
        assert ask(stack, table[:2] * 1e60)[0] == 400
    assert pids(stack) == both


def test_the_estimator_comes_when_it_is_wanted(stack: Stack, forest: Any) -> None:
    """With `runtime = "sklearn"` in model.toml the workers load the estimator, log it, and answer from it."""
    fitted, table = forest
    words = Path(stack.environ["TABLESIDE__REPOSITORY__PATH"]) / "forest" / "model.toml"
    assert "estimator_loaded" not in (stack.run_dir / "log" / "web.log").read_text()
    words.write_text('runtime = "sklearn"\n')
    stack.admin_call("/admin/api/reload", "POST")
    expected = fitted.predict_proba(table[:50]).ravel().tolist()
    status, content = ask(stack, table[:50])
    assert (status, content["outputs"][0]["data"]) == (200, expected)
    assert until(lambda: "estimator_loaded" in (stack.run_dir / "log" / "web.log").read_text())
    words.unlink()
    stack.admin_call("/admin/api/reload", "POST")
    assert ask(stack, table[:50])[1]["outputs"][0]["data"] == expected


def shared_entry(stack: Stack) -> Path:
    """Return the folder that all workers map. Drafts that several workers write at once are removed, all but one."""
    folder = stack.run_dir / "shared_store"
    assert until(lambda: [path.name.startswith(".") for path in folder.iterdir()] == [False]), list(folder.iterdir())
    (entry,) = folder.iterdir()
    return entry


def test_a_damaged_file_is_made_again_for_new_workers(stack: Stack, forest: Any) -> None:
    """After a restart a file with a changed byte is replaced, and the answers are the same as before."""
    fitted, table = forest
    path = shared_entry(stack) / "records.npy"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)
    with path.open("rb") as damaged:  # as long as it is open, no other file gets its number
        stack.restart()
        path = shared_entry(stack) / "records.npy"
        assert path.read_bytes() != bytes(content)
        assert path.stat().st_ino != os.fstat(damaged.fileno()).st_ino
    expected = fitted.predict_proba(table[:50]).ravel().tolist()
    assert ask(stack, table[:50])[1]["outputs"][0]["data"] == expected
