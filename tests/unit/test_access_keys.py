"""The keys file and the commands that change it."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tableside import access_keys
from tableside.access_keys import KeysFile, Scope, match, parse_duration
from tableside.cli import main
from tableside.errors import KeysFailed

pytestmark = pytest.mark.no_greenlets
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)

Run = Callable[..., Result]


@pytest.fixture
def file(tmp_path: Path) -> KeysFile:
    return KeysFile(tmp_path / "keys.json", tmp_path / "models")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command with the keys file and the repository of this test."""
    environ = {
        "TABLESIDE__SERVER__KEYS_FILE": str(tmp_path / "keys.json"),
        "TABLESIDE__REPOSITORY__PATH": str(tmp_path / "models"),
    }
    return lambda *words: CliRunner().invoke(main, ["keys", *words], env=environ)


def test_a_key_is_kept_as_its_hash_only(file: KeysFile) -> None:
    """256 random bits after a prefix; the file is private and has the SHA-256, not the key."""
    token = file.add("ci", Scope.PREDICT, NOW, timedelta(days=90))
    assert token.startswith(access_keys.PREFIX)
    assert len(token) >= len(access_keys.PREFIX) + 43
    text = file.path.read_text()
    assert token not in text
    assert token.removeprefix(access_keys.PREFIX) not in text
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    (kept,) = file.read()
    assert (kept.name, kept.scope, kept.created, kept.expires) == ("ci", Scope.PREDICT, NOW, NOW + timedelta(days=90))
    assert kept.sha256 == access_keys.digest(token)
    assert list(file.path.parent.iterdir()) == [file.path], "no draft is left"


def test_a_key_is_found_by_its_whole_text(file: KeysFile) -> None:
    """Nothing less and nothing more than the key is one."""
    tokens = [file.add(f"key-{number}", Scope.METRICS, NOW) for number in range(3)]
    keys = file.read()
    assert [found.name for token in tokens if (found := match(keys, token))] == ["key-0", "key-1", "key-2"]
    for text in ("", tokens[0][:-1], tokens[0] + "x", tokens[0].upper(), keys[0].sha256, "é"):
        assert match(keys, text) is None
    assert match((), tokens[0]) is None


def test_a_key_ends_at_its_time(file: KeysFile) -> None:
    """It is valid before that time and refused from then on; one without a time never ends."""
    file.add("short", Scope.PREDICT, NOW, timedelta(hours=1))
    file.add("long", Scope.PREDICT, NOW)
    short, long = file.read()
    assert not short.has_expired(NOW + timedelta(minutes=59))
    assert short.has_expired(NOW + timedelta(hours=1))
    assert not long.has_expired(NOW + timedelta(days=10_000))


@pytest.mark.parametrize(("own", "good_for"), [("predict", "predict"), ("metrics", "metrics"),
                                               ("admin", "predict metrics admin")])  # fmt: skip
def test_the_admin_scope_includes_the_others(file: KeysFile, own: str, good_for: str) -> None:
    """A key is good for its own scope; the admin's for all."""
    file.add("key", Scope(own), NOW)
    (key,) = file.read()
    assert [scope for scope in Scope if key.allows(scope)] == good_for.split()


def test_two_commands_at_once_lose_no_key(file: KeysFile) -> None:
    """The file is changed under a lock."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: file.add(f"key-{number}", Scope.PREDICT, NOW), range(24)))
    assert len(file.read()) == 24


def test_the_stamp_changes_with_the_file(file: KeysFile) -> None:
    """By it the workers notice that keys were added or revoked, or that the mode has changed."""
    stamps = [file.stamp()]
    for change in (lambda: file.add("a", Scope.PREDICT, NOW), lambda: file.add("b", Scope.PREDICT, NOW),
                   lambda: file.revoke("a"), lambda: file.path.chmod(0o640)):  # fmt: skip
        change()
        stamps.append(file.stamp())
    assert len(set(stamps)) == len(stamps)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda path: path.chmod(0o604), r"can be read or changed by other users of this host. Run: chmod 600 "),
        (lambda path: path.write_text("{"), r"is damaged: .*Restore it from a copy, or remove it"),
        (lambda path: path.write_text('{"keys": [{"name": "a"}]}'), "is damaged: "),
        (lambda path: (path.unlink(), path.mkdir()), "server.keys_file .*"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused(
    file: KeysFile, spoil: Callable[[Path], object], problem: str
) -> None:
    """The error names the file and what to type; the commands change nothing then."""
    file.add("a", Scope.PREDICT, NOW)
    spoil(file.path)
    for use in (file.read, lambda: file.add("b", Scope.PREDICT, NOW), lambda: file.revoke("a")):
        with pytest.raises(KeysFailed, match=problem):
            use()


def test_keys_are_not_in_the_repository(tmp_path: Path) -> None:
    """Whoever writes models could make keys otherwise."""
    with pytest.raises(KeysFailed, match="is inside the repository"):
        KeysFile(tmp_path / "models" / "keys.json", tmp_path / "models").add("a", Scope.ADMIN, NOW)


@pytest.mark.parametrize("text", ["", "90", "d", "0d", "-1d", "1.5d", "90 d", "90D", "1y", "999999d", "٣d"])
def test_a_lifetime_that_is_none_is_refused(text: str) -> None:
    """A number of hours, days or weeks; the error shows examples."""
    with pytest.raises(KeysFailed, match="such as 12h, 90d or 4w"):
        parse_duration(text)


def test_lifetimes() -> None:
    """Hours, days and weeks."""
    assert [parse_duration(text) for text in ("12h", "90d", "4w")] == [
        timedelta(hours=12), timedelta(days=90), timedelta(weeks=4),
    ]  # fmt: skip


def test_the_commands(run: Run, file: KeysFile) -> None:
    """`add` prints the key alone on standard output, `list` never does, `revoke` removes it."""
    assert "make one with `tableside keys add" in run("list").output
    added = run("add", "ci", "--scope", "predict", "--expires", "90d")
    assert added.exit_code == 0
    token = added.stdout.strip()
    assert match(file.read(), token) is not None
    assert token not in added.stderr
    run("add", "prometheus", "--scope", "metrics")
    listed = run("list", "--json")
    assert token not in listed.output
    assert [(row["name"], row["scope"], row["state"]) for row in json.loads(listed.stdout)] == [
        ("ci", "predict", "valid"), ("prometheus", "metrics", "valid"),
    ]  # fmt: skip
    table = run("list").output
    assert "prometheus" in table
    assert "never" in table
    assert run("revoke", "ci").output == "revoked the key ci (scope predict)\n"
    assert [key.name for key in file.read()] == ["prometheus"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("add", "ci", "--scope", "predict"), "tableside: there is a key 'ci' already."),
        (("add", "a b", "--scope", "predict"), "tableside: 'a b' is no name for a key"),
        (("add", "x", "--scope", "predict", "--expires", "soon"), "tableside: --expires soon: expected"),
        (("revoke", "nobody"), "tableside: there is no key 'nobody' in "),
    ],
)
def test_mistakes_are_one_line(run: Run, words: tuple[str, ...], problem: str) -> None:
    """Exit code 2, and nothing on standard output that could be taken for a key."""
    assert run("add", "ci", "--scope", "predict").exit_code == 0
    done = run(*words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(problem)
