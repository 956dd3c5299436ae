"""Log lines about changes say what came, what went, and why."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import msgspec
import pytest

from tableside.deployment import setting_changes
from tableside.errors import FailureKind
from tableside.server.recycling import RecyclingWorker
from tableside.serving.statement import ModelStatement, Refusal, Statement
from tableside.serving.statement_changes import MOST, in_words
from tableside.settings import Settings


def test_a_generation_names_what_came_and_what_went() -> None:
    """Versions, aliases, what is newly left out and why, changed files, and an unused model.toml."""
    damaged = Refusal(FailureKind.DAMAGED, "model.skops is damaged")
    before = Statement(
        1,
        {
            "iris": ModelStatement(versions=(1, 2), aliases={"default": 1}, files="a"),
            "old": ModelStatement(versions=(3,)),
            "wine": ModelStatement(versions=(1, 2), refused={2: damaged}, text="x"),
        },
    )
    now = Statement(
        2,
        {
            "iris": ModelStatement(
                versions=(2, 3, 4), aliases={"default": 2, "next": 3}, refused={4: damaged}, files="b"
            ),
            "wine": ModelStatement(versions=(1, 2), refused={2: damaged}, text="x", problem="line 1: no table"),
        },
    )
    assert in_words(before, now) == {
        "came": "iris/3",
        "went": "iris/1, old/3",
        "aliases": "iris@default 1 -> 2, iris@next none -> 3",
        "refused": "iris/4: model.skops is damaged",
        "files": "iris",
        "unread": "wine: line 1: no table",
    }
    assert in_words(now, now) == {}


def test_many_changes_are_cut() -> None:
    """A line stays of a readable length."""
    now = Statement(1, {f"m{number:03}": ModelStatement(versions=(1,)) for number in range(MOST + 5)})
    assert in_words(Statement(), now)["came"].endswith(f"m{MOST - 1:03}/1 and 5 more")


def test_a_new_instance_says_which_settings_are_new(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the old and the new value and where it comes from; the first start and one without changes say nothing."""
    monkeypatch.setenv("TABLESIDE_CONFIG", str(tmp_path / "tableside.toml"))
    (tmp_path / "tableside.toml").write_text("")

    def note(**server: object) -> str:
        settings = msgspec.convert({"server": {"run_dir": str(tmp_path), **server}}, Settings)
        setting_changes.note(settings)
        return capfd.readouterr().out

    assert note(workers=2) == ""
    assert note(workers=2) == ""
    (tmp_path / "tableside.toml").write_text("[server]\nworkers = 4\n")
    line = note(workers=4, keys_file="/secret/place.json")
    assert "settings_changed" in line
    assert "server.workers 2 -> 4 (file)" in line
    assert "secret" not in line
    assert "secret" not in (tmp_path / setting_changes.FILE).read_text()
    assert stat.S_IMODE((tmp_path / setting_changes.FILE).stat().st_mode) == 0o600
    (tmp_path / setting_changes.FILE).write_text("[")
    assert note(workers=5) == "", "a damaged file is replaced"
    assert json.loads((tmp_path / setting_changes.FILE).read_text())


def test_a_worker_says_why_it_is_replaced() -> None:
    """Because of its number of requests, or because its threads are lost."""
    worker = RecyclingWorker.__new__(RecyclingWorker)
    worker.nr, worker._recycle_after = 120, 100
    assert worker._why_recycled() == (
        "it has answered 120 requests, and may answer 100 (server.max_requests_per_worker)"
    )
    worker._recycle_after = 0
    assert "never end" in worker._why_recycled()
