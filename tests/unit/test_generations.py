"""Generations: numbered without missing values of meaning, never shared."""

from __future__ import annotations

import threading
from pathlib import Path

from tableside.serving import generations


def test_numbers_go_up(tmp_path: Path) -> None:
    """Before the first there is 0; each publication is the next number."""
    folder = tmp_path / "generations"
    assert generations.newest(folder) == 0
    assert [generations.publish(folder, "test") for _ in range(3)] == [1, 2, 3]
    assert generations.newest(folder) == 3


def test_old_files_go(tmp_path: Path) -> None:
    """Only the last few files are kept, the newest among them, and no draft stays."""
    for _ in range(generations.KEEP + 5):
        last = generations.publish(tmp_path, "test")
    left = sorted(file.name for file in tmp_path.iterdir())
    assert len(left) == generations.KEEP
    assert left[-1] == f"{last:010d}.json"


def test_writers_at_once_get_their_own(tmp_path: Path) -> None:
    """Many threads that publish at once all succeed, with distinct numbers."""
    got: list[int] = []
    start = threading.Barrier(16)

    def publish() -> None:
        start.wait(30)
        got.extend(generations.publish(tmp_path, "test") for _ in range(5))

    threads = [threading.Thread(target=publish) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (
        len(set(got)) == len(got) == 80
    )  # a writer that fell far behind takes a later number: missing values are fine
    assert generations.newest(tmp_path) == max(got)
