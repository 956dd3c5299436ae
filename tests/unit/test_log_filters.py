"""`tableside logs` prints the lines that are asked for, from as far back as they are, and follows renamed files."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from tableside.cli import main
from tableside.cli.logs import command, files, filters
from tableside.cli.logs.files import LogFile
from tableside.cli.logs.filters import Filters
from tableside.cli.logs.following import Follower
from tableside.cli.logs.lines import head_of, render
from tableside.deployment.log_rotation import rotate

NOON = datetime(2026, 11, 27, 12, 0, 0, tzinfo=UTC)
Call = Callable[..., Result]


def line(event: str, second: float, **fields: Any) -> str:
    """A line of the workers' log, so many seconds after noon."""
    written = (NOON + timedelta(seconds=second)).isoformat().replace("+00:00", "Z")
    return json.dumps({"event": event, "source": "access", "level": "info", **fields, "time": written}) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The logs of a stack: access lines of workers and of nginx, a warning, a failure with a traceback, text lines."""
    made = tmp_path / "log"
    made.mkdir()
    (made / "web.log").write_text(
        line("a", 0, model="iris", version="1", status=200, ms=3.0, request_id="r-a")
        + line("b", 1, model="wine", version="3", status=429, ms=250.0, request_id="r-b")
        + line("c", 2, model="wine", version="4", status=500, ms=20.0)
        + line("d", 3, level="warning", source="follower", model="wine", version=3)
        + line("e", 4, level="error", source="tableside", model="iris/2")
        + "Traceback (most recent call last):\n  ValueError\n"
        + line("f", 6, path="/v2/models/iris/infer", status=404, ms=1.0)
    )
    (made / "nginx-access.log").write_text(
        '{"time":"2026-11-27T13:00:05+01:00","source":"nginx","path":"/v1/models/wine/versions/3:predict",'
        '"status":502,"s":0.5}\n'
    )
    (made / "nginx-error.log").write_text("2026/11/27 12:00:07 [crit] 5#5: no space left\n")
    (made / "supervisord.log").write_text("2026-11-27 12:00:08,087 WARN exited: web (exit status 1)\n")
    return made


@pytest.fixture
def printed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """The events and other words that are printed, as one letter each: n is nginx's access line, x its error line, s
    the line of supervisord, T a traceback.
    """
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    letters = {"ngin": "n", "2026/": "x", "WARN exited": "s", "Traceback": "T", "ValueError": ""}

    def call(*words: str) -> str:
        done = CliRunner().invoke(main, ["logs", "--run-dir", str(folder.parent), "--json", *words])
        assert done.exit_code == 0, done.output
        found = ""
        for each in done.stdout.splitlines():
            event = json.loads(each).get("event") if each.startswith("{") else None
            found += event or next(letter for text, letter in letters.items() if text in each)
        return found

    yield call
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "abcdeTnfxs"),
        (("-n", "3"), "fxs"),
        (("--status", "5xx"), "cn"),
        (("--status", "429,500-501"), "bc"),
        (("--status", "404", "--status", "200"), "af"),
        (("--model", "wine"), "bcdn"),
        (("--model", "wine/3"), "bdn"),
        (("--model", "iris"), "aeTf"),
        (("--model", "iris/2,wine/4"), "ceT"),
        (("--level", "warning"), "deTxs"),
        (("--level", "error"), "eTx"),
        (("--level", "critical"), "x"),
        (("--source", "nginx"), "nx"),
        (("--source", "nginx-error,supervisord"), "xs"),
        (("--source", "web"), "abcdeTf"),
        (("--source", "follower"), "d"),
        (("--slower", "100ms"), "bn"),
        (("--slower", "0.02s"), "bcn"),
        (("--since", "2026-11-27T12:00:04"), "eTnfxs"),
        (("--since", "2026-11-27T13:00:04+01:00", "--until", "2026-11-27T12:00:06"), "eTn"),
        (("--until", "2026-11-27T12:00:01"), "a"),
        (("--since", "2026-11-27", "-n", "2"), "xs"),
        (("--model", "wine", "--status", "5xx", "--slower", "100ms"), "n"),
        (("--model", "wine", "--since", "2026-11-27T12:00:02", "--source", "web"), "cd"),
        (("--request-id", "r-b"), "b"),
        (("--level", "warning", "--model", "wine"), "d"),
    ],
)
def test_each_filter_and_several(printed: Callable[..., str], words: tuple[str, ...], expected: str) -> None:
    """Of several filters all must hold. Lines of a traceback go with the line before them."""
    assert printed(*words) == expected


@pytest.mark.parametrize(
    ("words", "help_text"),
    [
        (("--status", "6xx"), "429, 5xx, 400-499"),
        (("--model", "wine/latest"), "wine/3"),
        (("--since", "yesterday"), "10m, 2h or 1d"),
        (("--since", "25:00"), "14:30"),
        (("--slower", "100"), "100ms"),
        (("--level", "loud"), "warning"),
        (("--until", "1h", "--follow"), "--follow"),
        (("--since", "1h", "--until", "2h"), "not after"),
    ],
)
def test_a_value_that_cannot_be_read_is_an_error_with_examples(
    folder: Path, words: tuple[str, ...], help_text: str
) -> None:
    """The exit status is 2, and the message says what to write."""
    done = CliRunner().invoke(main, ["logs", "--run-dir", str(folder.parent), *words])
    assert (done.exit_code, done.stdout) == (2, "")
    assert help_text in done.stderr


def test_times_that_people_write() -> None:
    """So long ago, a time of today, a date, and a zone; without a zone it is UTC."""
    read = filters.moment(lambda: NOON)
    context, parameter = click.Context(main), click.Option(["--since"])

    def at(text: str) -> datetime:
        return datetime.fromtimestamp(read(context, parameter, text) or 0, UTC)

    assert at("10m") == NOON - timedelta(minutes=10)
    assert at("1.5h") == NOON - timedelta(minutes=90)
    assert at("11:30") == NOON - timedelta(minutes=30)
    assert at("2026-11-26") == datetime(2026, 11, 26, tzinfo=UTC)
    assert at("2026-11-27T13:00+01:00") == NOON
    assert read(context, parameter, None) is None


def test_nothing_matches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how many lines were looked at, from when on, and how to look further if there are more."""
    done = CliRunner().invoke(main, ["logs", "--run-dir", str(folder.parent), "--status", "418"])
    assert (done.exit_code, done.stdout) == (0, "")
    assert "0 of 11 lines match; the first line is of 2026-11-27T12:00:00Z" in done.stderr
    assert "--since reads further back" not in done.stderr, "every line was read"
    monkeypatch.setattr(command, "READ_BACK_BYTES", 300)
    done = CliRunner().invoke(main, ["logs", "--run-dir", str(folder.parent), "--status", "418"])
    assert "--since reads further back" in done.stderr
    done = CliRunner().invoke(main, ["logs", "--run-dir", str(folder.parent), "--since", "2030-01-01"])
    assert "there are no lines of this time" in done.stderr


def test_a_folder_of_another_user_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So for every command: an operator forgets sudo on an installed host."""

    def refuse(path: Path) -> dict[str, Path]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(command, "logs_of", refuse)
    done = CliRunner().invoke(main, ["logs", "--run-dir", str(folder.parent)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"tableside: {folder}: this user may not use it. Run the command as its owner, or with sudo\n"


def test_older_files_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--since` reads renamed files back to that time, `web.log.2` before `web.log.1`. Without a time so many bytes of
    each log are read, also if its file has just been begun.
    """
    (folder / "web.log.1").write_text(line("y", -200, status=200))
    (folder / "web.log.2").write_text(line("x", -300, status=200))
    (folder / "web.log.3").write_text(line("w", -99999, status=200))
    (folder / "audit.log").write_text("")
    (folder / "audit.log.20261127T115000.000001").write_text(line("z", -250, source="audit"))
    (folder / "web.log.old").write_text(line("not ours", -200))

    def events(*words: str) -> list[str]:
        done = CliRunner().invoke(main, ["logs", "--run-dir", str(folder.parent), "--json", *words])
        return [json.loads(each)["event"] for each in done.stdout.splitlines()]

    assert events("--since", "2026-11-27T11:54", "--until", "2026-11-27T12:00:01") == ["x", "z", "y", "a"]
    assert events("--since", "2026-11-27T11:54", "-n", "3", "--until", "2026-11-27T12:00") == ["x", "z", "y"]
    assert events("--until", "2026-11-27T11:00") == ["w"]
    assert events("--status", "200", "-n", "4") == ["w", "x", "y", "a"]
    (folder / "web.log").write_text(line("a", 0, status=200))
    monkeypatch.setattr(command, "READ_BACK_BYTES", len(line("a", 0, status=200)) * 2 + 10)
    assert events("--source", "web") == ["y", "a"]


def test_a_printed_table_with_dates_is_no_line_of_that_time(folder: Path) -> None:
    """A model that prints a series by its dates hides no line: supervisord, nginx and workers write a level."""
    series = "2013-01-01 00:00:00  0.469\n2033-01-01 00:00:00.5\t[1.5, 2]\n"
    many = "".join(line(f"e{number}", number / 10, status=200, filler="x" * 60) for number in range(8000))
    (folder / "web.log").write_text(many[: len(many) // 2] + series + many[len(many) // 2 :].partition("\n")[2])
    assert (folder / "web.log").stat().st_size > 4 * files.BLOCK_BYTES
    with (folder / "web.log").open("a") as stream:
        stream.write('{"time":1712011200000,"level":null,"event":"printed by a model"}\n')
        stream.write('{"time":"2026-11-27T12:00:00Z","level":null}\n')

    def count(*words: str) -> int:
        done = CliRunner().invoke(main, ["logs", "--run-dir", str(folder.parent), "--status", "200", *words])
        assert done.exception is None
        return done.stdout.count("access: e")

    assert 7990 < count("--since", "2026-11-27T11:00") < 8000
    assert count("--since", "2026-11-27T11:00", "--until", "2026-11-27T20:00") == count("--since", "2026-11-27T11:00")
    done = CliRunner().invoke(main, ["logs", "--run-dir", str(folder.parent), "-n", "3"])
    assert (done.exception, done.exit_code) == (None, 0)


def test_text_lines_of_workers_have_their_level_and_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """`log.format = "text"`, read where the local time is another one; supervisord's lines have the local time."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        of_worker = head_of(b"2026-11-27T12:00:00.935405Z [error    ] bad_thing  source=tableside\n")
        of_supervisord = head_of(b"2026-11-27 07:00:00,087 WARN exited: web (exit status 1)\n")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert of_worker is not None and of_supervisord is not None
    assert (of_worker.at_s, of_worker.level) == (NOON.timestamp() + 0.935, logging.ERROR)
    assert (of_supervisord.at_s, of_supervisord.level) == (NOON.timestamp() + 0.087, logging.WARNING)


def test_a_path_of_a_client_hides_no_line(folder: Path) -> None:
    """nginx writes a path as it was sent, also bytes that are no UTF-8; `--json` is JSON whatever is in it."""
    with (folder / "nginx-access.log").open("ab") as stream:
        for path, status in ((b"/v2/\xff", 500), (b"/v2/\x7f\xc2\x84", 504)):
            stream.write(b'{"time":"2026-11-27T12:00:05Z","source":"nginx","path":"%b","status":%d}\n' % (path, status))
    run = ["logs", "--run-dir", str(folder.parent), "--source", "nginx", "--json", "--status"]
    found = [json.loads(each) for each in CliRunner().invoke(main, [*run, "5xx"]).stdout.splitlines()]
    assert [(each["path"], each["status"]) for each in found][1:] == [("/v2/\ufffd", 500), ("/v2/\x7f\x84", 504)]
    assert "\x7f" not in CliRunner().invoke(main, [*run, "504"]).stdout


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A log of 40,000 lines, 50 in a second, two of each hundred the wrong way round."""
    path = tmp_path / "log" / "web.log"
    path.parent.mkdir()
    lines = [line(f"e{number}", number / 50, status=200, filler="x" * 50) for number in range(40000)]
    for at in range(50, 40000, 100):
        lines[at], lines[at + 1] = lines[at + 1], lines[at]
    path.write_text("".join(lines))
    return path


def test_a_large_log_is_read_where_the_time_is(large: Path) -> None:
    """Halving finds the place: less than two blocks of the file are in front of it. The lines come in their order."""
    file = LogFile(large, "web")
    wanted = NOON.timestamp() + 700
    place = file.place_of(wanted)
    first = head_of(next(file.forwards(place)))
    assert first is not None
    assert wanted - 60 < first.at_s < wanted
    file.close()
    done = CliRunner().invoke(main, ["logs", "--run-dir", str(large.parents[1]), "--json", "--since",
                                     "2026-11-27T12:11:40", "--until", "2026-11-27T12:11:42"])  # fmt: skip
    assert [json.loads(each)["event"] for each in done.stdout.splitlines()] == [f"e{n}" for n in range(35000, 35100)]


def test_lines_are_read_backwards(large: Path) -> None:
    """Over the borders of blocks every line comes once, whole; the line that is being written does not come."""
    with large.open("a") as stream:
        stream.write('{"half')
    file = LogFile(large, "web")
    assert list(file.backwards())[::-1] == large.read_bytes().splitlines()[:-1]
    assert list(file.forwards(0)) == large.read_bytes().splitlines()[:-1]
    newest = list(file.backwards(1000))
    assert 0 < sum(map(len, newest)) <= 1000
    assert newest[0] == large.read_bytes().splitlines()[-2]
    file.close()


@pytest.mark.parametrize("text", [b"", b"\n", b"no end", b"{}\n\n{}\n", b"\xff\xfe\n"])
def test_odd_files_are_read(tmp_path: Path, text: bytes) -> None:
    """Empty lines are left out, and nothing raises."""
    (tmp_path / "web.log").write_bytes(text)
    file = LogFile(tmp_path / "web.log", "web")
    assert list(file.forwards(0)) == list(file.backwards())[::-1]
    assert file.place_of(0.0) == 0
    file.close()


def follow(path: Path) -> Callable[[], list[str]]:
    """Return what gives the events that have come since the last call."""
    follower = Follower(path, LogFile(path, path.stem))
    return lambda: [json.loads(each)["event"] for each in follower.lines(0.0)]


def append(path: Path, *events: str) -> None:
    with path.open("a") as stream:
        stream.writelines(line(event, 0) for event in events)


def test_renamed_files_are_followed_without_loss(tmp_path: Path) -> None:
    """What was written before and after a rename comes once, also by a writer that has the old file open, and also if
    the file was renamed twice between two looks.
    """
    path = tmp_path / "web.log"
    append(path, "before")
    new = follow(path)
    append(path, "1")
    assert new() == ["1"]
    with path.open("a") as old:
        append(path, "2")
        assert rotate(path, 1, 5)
        append(path, "3")
        assert new() == ["2", "3"]
        old.write(line("4", 0))
    append(path, "5")
    assert new() == ["4", "5"]
    append(path, "6")
    rotate(path, 1, 5)
    append(path, "7")
    rotate(path, 1, 5)
    append(path, "8")
    assert new() == ["6", "7", "8"]
    rotate(path, 1, 5)
    assert new() == [], "there is no new file yet"
    append(path, "9")
    assert new() == ["9"]


def test_a_file_that_became_shorter_is_followed(tmp_path: Path) -> None:
    """logrotate's copytruncate empties a file in place."""
    path = tmp_path / "web.log"
    append(path, "before", "and more")
    new = follow(path)
    path.write_text("")
    append(path, "1")
    assert new() == ["1"]


def test_half_a_line_waits(tmp_path: Path) -> None:
    """A line comes when its end is written."""
    path = tmp_path / "web.log"
    append(path, "before")
    new = follow(path)
    whole = line("1", 0)
    with path.open("a") as stream:
        stream.write(whole[:10])
        stream.flush()
        assert new() == []
        stream.write(whole[10:])
    assert new() == ["1"]


def test_a_file_is_not_read_twice_when_it_is_renamed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log itself is opened first, so that its older name is known when the others are listed."""
    path = tmp_path / "web.log"
    append(path, "1")
    real = files.renamed

    def renamed(of: Path) -> Sequence[Path]:
        rotate(path, 1, 5)
        append(path, "2")
        return real(of)

    monkeypatch.setattr(files, "renamed", renamed)
    opened = files.open_all(path, "web", older=True)
    assert [list(each.forwards(0)) for each in opened] == [[line("1", 0).strip().encode()]]


def test_no_filter_holds_everything() -> None:
    """Also a line without fields."""
    head = head_of(b"2026-11-27 12:00:08,087 INFO spawned")
    assert head is not None
    assert Filters().holds(head, "supervisord", b"")
    assert not Filters(level=30).holds(head, "supervisord", b"")


def test_times_are_shown_as_utc() -> None:
    """nginx writes the local time with its offset, and workers write UTC: both look alike."""
    assert render('{"time":"2026-11-27T13:00:05+01:00","source":"nginx"}').startswith("2026-11-27T12:00:05.000 info")
    assert render('{"time":"2026-11-27T12:00:05.123456Z","event":"x"}').startswith("2026-11-27T12:00:05.123 info")
    assert render('{"time":"soon","event":"x"}').startswith("soon  ")
