"""Files that only their owner may read are written in one step, or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tableside import private_files
from tests.small_disks import run_on_small_disk

pytestmark = pytest.mark.no_greenlets


def test_the_file_is_private_and_replaced_whole(tmp_path: Path) -> None:
    """Mode 0600 whatever the umask and the earlier file say; a reader that has the earlier one open keeps it."""
    path = tmp_path / "secret"
    path.write_bytes(b"before")
    path.chmod(0o644)
    before, mask = path.open("rb"), os.umask(0)
    try:
        private_files.write(path, b"after")
    finally:
        os.umask(mask)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"after", 0o600)
    assert before.read() == b"before"
    before.close()
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]


def test_a_draft_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    """The check sees the new content in a private file; what it raises arrives, and no draft is left."""
    path, seen = tmp_path / "secret", []
    private_files.write(path, b"good")

    def refuse(draft: Path) -> None:
        seen.append((draft.read_bytes(), stat.S_IMODE(draft.stat().st_mode)))
        raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"):
        private_files.write(path, b"bad", refuse)
    assert (path.read_bytes(), seen) == (b"good", [(b"bad", 0o600)])
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]


def test_the_draft_of_a_killed_process_is_in_nobody_s_way(tmp_path: Path) -> None:
    """A process may have the pid of one that was killed while it wrote."""
    (tmp_path / f"secret.{os.getpid()}.new").write_bytes(b"half")
    private_files.write(tmp_path / "secret", b"whole")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("secret", b"whole")]


ON_A_FULL_DISK = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from tableside import private_files
from tableside.access_keys import KeysFile, Scope
from tableside.deployment import launch
from tableside.errors import KeysFailed
from tests.small_disks import fill
folder = Path(sys.argv[1])
keys = KeysFile(folder / "keys.json", folder / "models")
keys.add("first", Scope.PREDICT, datetime.now(UTC))
filler = fill(folder)
try:
    keys.add("second", Scope.PREDICT, datetime.now(UTC))
except KeysFailed as problem:
    print(problem)
print([key.name for key in keys.read()])
try:
    launch.make_key(folder)
except OSError as problem:
    print(problem.strerror)
print(sorted(file.name for file in folder.iterdir()))
filler.unlink()
print(len(launch.make_key(folder).read_text()))
"""


def test_a_full_disk_leaves_no_half_key(tmp_path: Path) -> None:
    """The keys of before stay. An admin key that cannot be written is made at the next start, and is never empty."""
    done = run_on_small_disk(ON_A_FULL_DISK, tmp_path, "64k")
    assert done.stdout.splitlines() == [
        f"server.keys_file ({tmp_path / 'keys.json'}) cannot be written: No space left on device",
        "['first']",
        "No space left on device",
        "['filler', 'keys.json']",
        "44",
    ], done.stderr
