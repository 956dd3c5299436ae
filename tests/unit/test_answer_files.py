"""Large answers are complete on disk before nginx sends them; their files are removed when nginx has opened them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tableside.process import answer_files
from tableside.process.answer_files import DRAFTS, FOLDER, AnswerFiles
from tableside.process.open_watch import OpenWatch
from tests.small_disks import run_on_small_disk


def names(run_dir: Path) -> set[str]:
    return {file.name for folder in (FOLDER, DRAFTS) for file in (run_dir / folder).iterdir()}


def test_a_file_is_removed_when_it_was_opened(tmp_path: Path) -> None:
    """Whoever has it open goes on reading; the file that nobody has opened stays."""
    files = AnswerFiles(tmp_path)
    first, second = files.put(b"first" * 1000), files.put(b"second")
    assert names(tmp_path) == {first, second}
    with (tmp_path / FOLDER / first).open("rb") as reader:
        files.collect()
        assert names(tmp_path) == {second}
        assert reader.read() == b"first" * 1000
    assert (tmp_path / FOLDER / second).stat().st_mode & 0o777 == 0o600


def test_a_further_answer_removes_those_before(tmp_path: Path) -> None:
    """A worker that is busy does not wait for the next second."""
    files = AnswerFiles(tmp_path)
    for number in range(20):
        name = files.put(b"x%d" % number)
        assert (tmp_path / FOLDER / name).read_bytes() == b"x%d" % number
    assert names(tmp_path) == {name}


def test_a_file_that_nobody_opens_is_removed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client has gone. So it is without a watch, as where inotify is not allowed."""

    def refuse(folder: Path) -> OpenWatch:
        raise OSError("too many watches")

    monkeypatch.setattr(answer_files, "OpenWatch", refuse)
    files = AnswerFiles(tmp_path)
    name = files.put(b"unread")
    (tmp_path / FOLDER / name).read_bytes()
    files.collect()
    assert names(tmp_path) == {name}
    monkeypatch.setattr(answer_files, "KEEP_S", -1.0)
    files.collect()
    assert names(tmp_path) == set()


def test_what_a_killed_worker_has_left_is_swept(tmp_path: Path) -> None:
    """Any worker removes old files, also drafts, and none that another worker may have just written."""
    other = AnswerFiles(tmp_path).put(b"new")
    for folder in (FOLDER, DRAFTS):
        left = tmp_path / folder / "left"
        left.write_bytes(b"x")
        os.utime(left, (0, time.time() - answer_files.LEFT_S - 1))
    AnswerFiles(tmp_path).collect()
    assert names(tmp_path) == {other}


def test_nothing_is_done_without_large_answers(tmp_path: Path) -> None:
    """A worker that collects each second makes no folder and watches nothing."""
    AnswerFiles(tmp_path).collect()
    assert list(tmp_path.iterdir()) == []


def test_a_watch_names_each_file_once(tmp_path: Path) -> None:
    """Opening is told, with any name; making, renaming and writing elsewhere is not."""
    folder = tmp_path / "watched"
    folder.mkdir()
    for name in ("a", "n\u00e9", "x" * 200):
        (folder / name).write_bytes(b"")
    watch = OpenWatch(folder)
    (tmp_path / "draft").write_bytes(b"")
    (tmp_path / "draft").rename(folder / "unopened")
    assert watch.opened() == set()
    for name in ("a", "a", "n\u00e9", "x" * 200):
        (folder / name).read_bytes()
    assert watch.opened() == {"a", "n\u00e9", "x" * 200}
    assert watch.opened() == set()
    watch.close()
    with pytest.raises(OSError, match="No such file"):
        OpenWatch(tmp_path / "none")


ON_A_FULL_DISK = """
import sys
from pathlib import Path
from tableside.process.answer_files import DRAFTS, FOLDER, AnswerFiles
run_dir = Path(sys.argv[1])
files = AnswerFiles(run_dir)
first = files.put(b"x" * 600_000)
reader = (run_dir / FOLDER / first).open("rb")
for _ in range(2):
    try:
        files.put(b"y" * 600_000)
    except OSError as problem:
        print(problem.strerror)
    files.collect()
    print([len(list((run_dir / folder).iterdir())) for folder in (FOLDER, DRAFTS)])
print(len(reader.read()))
reader.close()
print(len((run_dir / FOLDER / files.put(b"z" * 600_000)).read_bytes()))
"""


def test_open_answers_count_and_give_their_space_back(tmp_path: Path) -> None:
    """A disk of 1 MB has room for one answer at a time: the next is refused, without a rest, until it was read."""
    done = run_on_small_disk(ON_A_FULL_DISK, tmp_path, "1m")
    full = ["No space left on device", "[0, 0]"]
    assert done.stdout.splitlines() == [*full, *full, "600000", "600000"], done.stderr
