"""Generations: numbered files that writers never share and readers compare."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import orjson
import pytest

from tableside.errors import ModelNotReady
from tableside.serving import generations
from tests.small_disks import on_small_disks

ROOT = Path(__file__).parents[2]


def test_numbers_go_up(tmp_path: Path) -> None:
    """The newest number is 0 before the first publication, and each publication adds one."""
    folder = tmp_path / "generations"
    assert generations.newest(folder) == 0
    assert [generations.publish(folder, "test") for _ in range(3)] == [1, 2, 3]
    assert generations.newest(folder) == 3


def test_a_file_holds_its_number_and_reason(tmp_path: Path) -> None:
    """An operator can read in the file why the workers reload."""
    number = generations.publish(tmp_path, "load of model iris")
    content = orjson.loads((tmp_path / f"{number:010d}.json").read_bytes())
    assert (content["generation"], content["reason"]) == (1, "load of model iris")
    assert content["time"] > 0


def test_old_files_are_removed(tmp_path: Path) -> None:
    """Only the last KEEP files stay, the newest among them, and no draft."""
    for _ in range(generations.KEEP + 5):
        last = generations.publish(tmp_path, "test")
    remaining = sorted(file.name for file in tmp_path.iterdir())
    assert len(remaining) == generations.KEEP
    assert remaining[-1] == f"{last:010d}.json"


def test_drafts_are_no_generations(tmp_path: Path) -> None:
    """A draft that a killed writer has left behind counts neither as a number nor as a file to keep."""
    (tmp_path / ".0123456789abcdef").write_text("{}")
    assert generations.newest(tmp_path) == 0
    assert generations.publish(tmp_path, "test") == 1


def test_a_number_above_ten_digits_still_counts(tmp_path: Path) -> None:
    """Numbers are compared as numbers and not as text."""
    for number in (9, 10):
        (tmp_path / f"{number}.json").write_text("{}")
    assert generations.newest(tmp_path) == 10
    assert generations.publish(tmp_path, "test") == 11


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """`publish` raises OSError where a file has the folder's name, and leaves no draft."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        generations.publish(tmp_path / "file", "test")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_an_operator_is_told_what_to_do(tmp_path: Path) -> None:
    """`announce` names the folder and the reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelNotReady, match=r"file cannot be written \(File exists\). Make room on disk"):
        generations.announce(tmp_path / "file", "test")
    assert generations.announce(tmp_path, "test") == 1


ON_A_FULL_DISK = """
import sys
from pathlib import Path
from tableside.serving import generations
from tests.small_disks import fill
folder = Path(sys.argv[1])
assert generations.publish(folder, "before") == 1
fill(folder)
print(generations.publish(folder, "after"), generations.newest(folder), len(list(folder.iterdir())))
"""


@pytest.mark.processes
def test_a_full_disk_stops_no_reload(tmp_path: Path) -> None:
    """The number is published without its reason, and no draft is left."""
    command = on_small_disks([sys.executable, "-c", ON_A_FULL_DISK, str(tmp_path)], {tmp_path: "64k"})
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, str(ROOT)]))}
    ended = subprocess.run(command, cwd=ROOT, env=environ, timeout=60, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "2 2 3\n"), ended.stderr


def test_writers_at_once_get_their_own_numbers(tmp_path: Path) -> None:
    """Many threads that publish at once all succeed, with distinct numbers; numbers may be skipped."""
    numbers: list[int] = []
    start = threading.Barrier(16)

    def publish() -> None:
        start.wait(30)
        numbers.extend(generations.publish(tmp_path, "test") for _ in range(5))

    threads = [threading.Thread(target=publish) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(numbers)) == len(numbers) == 80
    assert generations.newest(tmp_path) == max(numbers)
