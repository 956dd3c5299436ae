"""Who changed what is on disk before it is changed, also when the disk is full; nothing of it is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tableside.process.audit_log import FILE, AuditLog
from tests.small_disks import run_on_small_disk


def events(run_dir: Path) -> list[object]:
    return [json.loads(line)["event"] for line in (run_dir / FILE).read_text().splitlines()]


def test_lines_are_appended_and_private(tmp_path: Path) -> None:
    """The reserved space is no part of the file, and the file may be renamed by whoever keeps logs."""
    log = AuditLog(tmp_path)
    log.prepare()
    log.begin({"event": "a"})
    log.end({"event": "b"})
    assert events(tmp_path) == ["a", "b"]
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / FILE).rename(tmp_path / "audit-2026.log")
    AuditLog(tmp_path).begin({"event": "c"})
    assert events(tmp_path) == ["c"]


def test_a_line_that_was_cut_off_takes_no_other_with_it(tmp_path: Path) -> None:
    """The next one begins on a line of its own."""
    log = AuditLog(tmp_path)
    log.begin({"event": "a"})
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"event": "cu')
    log.begin({"event": "b"})
    assert [line["event"] for line in log.newest(9)] == ["a", "b"]


def test_each_line_that_is_read_is_an_object_that_can_be_encoded(tmp_path: Path) -> None:
    """Also those of an earlier release, with a byte of a command's argument that is no UTF-8."""
    log = AuditLog(tmp_path)
    log.begin({"event": "keys revoke", "name": "ann\udce9", "who": "zoë"})
    lone = b'{"event": "earlier", "name": "ann\\udce9"}\n'
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'[1]\n"text"\nnull\n\xff\n' + lone)
    found = log.newest(9)
    assert [(line["event"], line["name"]) for line in found] == [("keys revoke", "ann?"), ("earlier", "ann?")]
    assert found[0]["who"] == "zoë"
    assert b"udce9" not in (tmp_path / FILE).read_bytes().removesuffix(lone)


def test_an_end_that_cannot_be_written_is_kept(tmp_path: Path) -> None:
    """It comes before the next line, once, in the order of the ends."""
    log = AuditLog(tmp_path)
    log.begin({"event": "first"})
    (tmp_path / FILE).rename(tmp_path / "aside")
    (tmp_path / FILE).mkdir()
    log.end({"event": "first ended"})
    log.end({"event": "second ended"})
    with pytest.raises(OSError, match="Is a directory"):
        log.begin({"event": "refused"})
    (tmp_path / FILE).rmdir()
    log.begin({"event": "third"})
    assert events(tmp_path) == ["first ended", "second ended", "third"]


ON_A_FULL_DISK = """
import json, sys
from pathlib import Path
from tableside.process.audit_log import FILE, AuditLog
from tests.small_disks import fill
run_dir = Path(sys.argv[1])
logs = [AuditLog(run_dir), AuditLog(run_dir)]
logs[0].prepare()
filler = fill(run_dir)
begun, open_changes = 0, []
try:
    for number in range(10_000):
        log = logs[number % 2]
        log.begin({"event": "x" * 300, "state": "begun", "number": number})
        begun += 1
        open_changes.append((log, number))
        if len(open_changes) > 4:
            log, ended = open_changes.pop(0)
            log.end({"event": "x" * 300, "state": "done", "number": ended})
except OSError as problem:
    print(problem.strerror)
for log, number in open_changes:
    log.end({"event": "x" * 300, "state": "done", "number": number})
lines = [json.loads(line) for line in (run_dir / FILE).read_text().splitlines()]
states = [[line["number"] for line in lines if line["state"] == state] for state in ("begun", "done")]
print(begun > 50, states[0] == states[1] == list(range(begun)))
filler.unlink()
logs[1].begin({"event": "y"})
print((run_dir / FILE).read_text().endswith('{"event": "y"}\\n'))
"""


def test_on_a_full_disk_changes_go_on_or_are_refused(tmp_path: Path) -> None:
    """The reserve holds dozens of changes. Then none begins, and each that had begun has its end in the file."""
    done = run_on_small_disk(ON_A_FULL_DISK, tmp_path, "256k")
    assert done.stdout.splitlines() == ["No space left on device", "True True", "True"], done.stderr


WRITER = """
import sys
from pathlib import Path
from tableside.process.audit_log import AuditLog
log = AuditLog(Path(sys.argv[1]), max_bytes=3000)
for number in range(300):
    log.begin({"event": sys.argv[2], "number": number})
"""


def test_no_line_is_lost_while_the_file_is_renamed(tmp_path: Path) -> None:
    """Three processes write while the file is renamed some dozen times: each line is there once, in order of each."""
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in "abc"]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    files = sorted((tmp_path / "log").glob("audit.log.*"))
    assert len(files) > 5
    content = b"".join(file.read_bytes() for file in (*files, tmp_path / FILE)).splitlines()
    lines = [json.loads(line) for line in content]
    for name in "abc":
        assert [line["number"] for line in lines if line["event"] == name] == list(range(300))
    assert all(file.stat().st_size < 4000 and file.stat().st_mode & 0o777 == 0o600 for file in files)
    assert [line for line in AuditLog(tmp_path).newest(900)] == lines
    assert AuditLog(tmp_path).newest(7) == lines[-7:]
    assert not list((tmp_path / "log").glob(".*"))
