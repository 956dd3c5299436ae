"""A start says when the run folder's disk has too little room for what the settings allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tableside.deployment import disk_fit
from tests.conftest import MakeSettings

pytestmark = pytest.mark.no_greenlets


def test_a_start_warns_of_a_small_disk(make_settings: MakeSettings, tmp_path: Path) -> None:
    """The line names the folder, the free space and the need; what is written already is no need."""
    (tmp_path / "models").mkdir()
    more = {"log__max_bytes": "1000000", "log__keep_files": "4", "server__max_body_bytes": "10000000"}
    settings = make_settings(tmp_path / "models", tmp_path / "run", server__max_answer_bytes="20000000", **more)
    needed = disk_fit.need_bytes(settings)
    assert needed == 20_000_000 + 10_000_000 + 20_000_000 + disk_fit.OTHER_BYTES
    key = (tmp_path / "run/admin.key").stat().st_size
    assert disk_fit.warning(settings, needed - key) == ""
    assert disk_fit.warning(settings, needed - key - 1) == (
        f"tableside: warning: the disk of {tmp_path / 'run'} has 0.1 GB free, and the stack may come to need 0.1 GB "
        "there: make room, or set log.max_bytes and log.keep_files lower\n"
    )
    (tmp_path / "run/log").mkdir()
    (tmp_path / "run/log/web.log").write_bytes(bytes(1000))
    assert disk_fit.warning(settings, needed - key - 1000) == ""


def test_the_file_system_is_asked(make_settings: MakeSettings, tmp_path: Path) -> None:
    """Without a number, the free space of the run folder's file system counts; a missing folder says nothing."""
    (tmp_path / "models").mkdir()
    huge = make_settings(tmp_path / "models", tmp_path / "run", log__max_bytes=str(2**60))
    assert "make room" in disk_fit.warning(huge)
    (tmp_path / "run/admin.key").unlink()
    (tmp_path / "run").rmdir()
    assert disk_fit.warning(huge) == ""
