"""Relative paths of settings count from one folder: for `tableside run`, its programs, and `tableside keys`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tableside.access_keys import KeysFile
from tableside.cli import main
from tableside.deployment import instances, layout, releases, running_stack
from tableside.process import worker_slots
from tableside.setting_variables import FOLDER_VARIABLE
from tableside.settings import Settings, load

pytestmark = pytest.mark.no_greenlets
TOML = """
[server]
run_dir = "run"
keys_file = "secrets/keys.json"
tls_certificate = "tls/chain.pem"
tls_key = "/etc/tls/key.pem"
"""


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """The settings of a stack that was started in a folder with a `tableside.toml`; a worker of it runs."""
    (tmp_path / "home" / "run").mkdir(parents=True)
    (tmp_path / "home" / "tableside.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path / "home")
    settings = load()
    running_stack.record(settings)
    slot = worker_slots.acquire(settings.run_dir / "worker_slots")
    yield settings
    slot.release()


def test_programs_mean_the_files_that_the_start_has_checked(
    started: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run in the project's folder, and read the same settings file; absolute paths stay as they are."""
    environ, checked = layout.environment(started, {"HOME": "/"}), started.keys_path
    monkeypatch.chdir(layout.PROJECT)
    seen = load(environ)
    home = tmp_path / "home"
    assert seen.keys_path == checked == home / "secrets/keys.json"
    assert (seen.server.tls_certificate, seen.server.tls_key) == (str(home / "tls/chain.pem"), "/etc/tls/key.pem")
    assert seen.repository.consent_file == str(home / "consent.jsonl")
    assert (seen.run_dir, seen.repository_path) == (home / "run", home / "models")
    assert layout.environment(seen, environ)[FOLDER_VARIABLE] == str(home), "a program passes it on"
    workers = instances.environment(releases.running(environ), environ, "1", seen.run_dir, "1-1")
    assert load(workers) == seen, "gunicorn, which the web keeper starts"


def test_in_the_folder_of_the_project_nothing_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an upgrade the paths count from the folder of the new release, which the programs run in."""
    monkeypatch.chdir(layout.PROJECT)
    assert FOLDER_VARIABLE not in layout.environment(load({}), {"HOME": "/"})


def test_keys_are_added_where_the_server_reads_them(
    started: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called in another folder, the command finds the stack by its run folder, and writes the file that it reads."""
    read = started.keys_path
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TABLESIDE__SERVER__RUN_DIR", str(tmp_path / "home" / "run"))
    monkeypatch.setenv("TABLESIDE__SERVER__KEYS_FILE", "secrets/keys.json")
    done = CliRunner().invoke(main, ["keys", "add", "webshop", "--scope", "predict"])
    assert done.exit_code == 0, done.output
    assert str(read) in done.output
    assert [key.name for key in KeysFile(read, tmp_path / "models").read()] == ["webshop"]
    assert not os.path.exists(tmp_path / "secrets")
    assert "webshop" in CliRunner().invoke(main, ["keys", "list"]).output
