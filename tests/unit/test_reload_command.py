"""`tableside reload` posts to the admin route with the key and reports what the workers serve."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks.free_ports import free_port
from tableside.cli import main
from tableside.process import worker_slots


class AdminServer:
    """Answers every POST with the same status and body, and remembers paths and Authorization headers."""

    def __init__(self) -> None:
        self.status, self.body = 200, b"{}"
        self.requests: list[tuple[str, str]] = []
        admin = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                admin.requests.append((self.path, self.headers.get("Authorization", "")))
                self.send_response(admin.status)
                self.send_header("Content-Length", str(len(admin.body)))
                self.end_headers()
                self.wfile.write(admin.body)

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def answers(self, status: int, content: object) -> None:
        self.status, self.body = status, json.dumps(content).encode()


@pytest.fixture
def admin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdminServer]:
    """A server at server.admin_listen, and the admin key in the run folder."""
    (tmp_path / "admin.key").write_text("the-key\n")
    admin = AdminServer()
    monkeypatch.setenv("TABLESIDE__SERVER__RUN_DIR", str(tmp_path))
    monkeypatch.setenv("TABLESIDE__SERVER__ADMIN_LISTEN", f"127.0.0.1:{admin.server.server_port}")
    thread = threading.Thread(target=admin.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield admin
    admin.server.shutdown()
    thread.join()
    admin.server.server_close()


def reload(*words: str) -> Result:
    return CliRunner().invoke(main, ["reload", *words])


def model(name: str, version: int, state: str = "READY", reason: str = "") -> dict[str, object]:
    return {"name": name, "version": version, "state": state, "reason": reason, "failure_kind": "", "current": True}


def test_a_complete_reload_counts_workers_and_ready_versions(admin: AdminServer) -> None:
    """The first line counts workers and READY versions; one that is unavailable is named, and the exit code is 1."""
    models = [model("iris", 1), model("iris", 2, "UNAVAILABLE", "model.skops is damaged")]
    admin.answers(
        200, {"generation": 7, "workers": [{"pid": 1, "models": models}, {"pid": 2, "models": models}], "late": []}
    )
    done = reload()
    assert done.exit_code == 1, done.output
    assert done.stdout.splitlines() == ["generation 7: 2 workers serve 1 versions"]
    assert done.stderr.splitlines() == ["  iris/2 is UNAVAILABLE: model.skops is damaged"]
    assert admin.requests == [("/admin/api/reload", "Bearer the-key")]


def test_a_ready_version_with_a_warning_is_shown(admin: AdminServer) -> None:
    """A version that is served with a warning counts as served and is a line as well."""
    models = [model("iris", 1, reason="environment_skew is 'warn'")]
    admin.answers(200, {"generation": 1, "workers": [{"pid": 1, "models": models}], "late": []})
    assert reload().stdout.splitlines() == [
        "generation 1: 1 workers serve 1 versions",
        "  iris/1 is READY: environment_skew is 'warn'",
    ]


def test_late_workers_are_named_and_the_exit_code_is_1(admin: AdminServer) -> None:
    """A 202 means that some workers did not finish: each is a line on stderr. A worker may have no status yet."""
    late = {"pid": 12, "generation": 3}
    admin.answers(202, {"generation": 4, "workers": [late, {"worker_slot": 1}], "late": [late]})
    done = reload()
    assert done.exit_code == 1
    assert done.stdout == "generation 4: 2 workers serve 0 versions\n"
    assert done.stderr == "  worker 12 has not read the repository yet\n"


def test_json_prints_the_answer_unchanged(admin: AdminServer) -> None:
    """--json prints the server's object, including fields that the text leaves out."""
    content = {"generation": 1, "complete": True, "workers": [], "late": []}
    admin.answers(200, content)
    assert json.loads(reload("--json").stdout) == content


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, b'{"error": "this is not the admin key"}', "this is not the admin key"),
        (500, b"{}", "status 500"),
        (200, b"<html>", "no answer from 127.0.0.1:"),
        (200, b"[1]", "Expected `object`"),
        (200, b'{"generation": "one"}', "unexpected answer to /admin/api/reload"),
    ],
)
def test_other_answers_are_one_line_and_exit_code_2(
    admin: AdminServer, status: int, body: bytes, expected: str
) -> None:
    """An error of the server, or an answer that cannot be read, is one line on stderr."""
    admin.status, admin.body = status, body
    done = reload()
    assert (done.exit_code, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert expected in done.stderr


def test_a_missing_key_names_the_file_and_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without admin.key no stack was started in the run folder; the message says how to start one."""
    monkeypatch.setenv("TABLESIDE__SERVER__RUN_DIR", str(tmp_path))
    done = reload()
    assert done.exit_code == 2
    assert f"cannot read {tmp_path / 'admin.key'}" in done.stderr
    assert "`tableside run`" in done.stderr


def test_an_address_without_a_server_is_named_with_its_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If nothing listens, the message has the address and the setting that holds it."""
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "admin.key").write_text("k")
    monkeypatch.setenv("TABLESIDE__SERVER__RUN_DIR", str(tmp_path))
    monkeypatch.setenv("TABLESIDE__SERVER__ADMIN_LISTEN", address)
    done = reload()
    assert done.exit_code == 2
    assert f"no answer from {address} (server.admin_listen)" in done.stderr


def test_a_version_that_is_unloaded_on_purpose_is_no_failure(admin: AdminServer) -> None:
    """`enabled = false` in model.toml makes a version unavailable, as the operator wants it."""
    models = [model("iris", 1, "UNAVAILABLE", "unloaded: enabled is false in model.toml")]
    admin.answers(200, {"generation": 1, "workers": [{"pid": 1, "models": models}], "late": []})
    done = reload()
    assert (done.exit_code, done.stderr) == (0, "")
    assert "  iris/1 is UNAVAILABLE: unloaded" in done.stdout


def test_changed_files_that_do_not_load_are_a_failure(admin: AdminServer) -> None:
    """A version that still serves what it had loaded before its files changed is named, and the exit code is 1."""
    models = [{**model("iris", 1, reason="the files changed and no longer load"), "current": False}]
    admin.answers(200, {"generation": 1, "workers": [{"pid": 1, "models": models}], "late": []})
    done = reload()
    assert (done.exit_code, done.stderr) == (1, "  iris/1 is READY: the files changed and no longer load\n")


def test_a_worker_that_cannot_read_the_repository_is_a_failure(admin: AdminServer) -> None:
    """The reason why workers cannot read the repository is one line for all of them."""
    workers = [{"pid": pid, "models": [], "failure": "FileNotFoundError: the repository is gone"} for pid in (1, 2)]
    admin.answers(200, {"generation": 1, "workers": workers, "late": []})
    done = reload()
    assert done.exit_code == 1
    assert done.stderr == "  the repository cannot be read: FileNotFoundError: the repository is gone\n"


def test_dangling_aliases_and_broken_files_are_named(
    admin: AdminServer, small_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alias of a missing version, and a model.toml that cannot be read, are named, and the exit code is 1."""
    monkeypatch.setenv("TABLESIDE__REPOSITORY__PATH", str(small_repository))
    admin.answers(200, {"generation": 1, "workers": [], "late": []})
    (small_repository / "iris" / "model.toml").write_text("[aliases]\nbest = 9\n")
    done = reload()
    assert done.exit_code == 1
    assert done.stderr == "  iris: alias 'best' in model.toml points at version 9, which does not exist\n"
    (small_repository / "iris" / "model.toml").write_text("[columns.missing_words]\nsepal = []\n")
    assert "  iris: columns.missing_words in model.toml names the column 'sepal', which no served" in reload().stderr
    (small_repository / "iris" / "model.toml").write_text("[aliases\n")
    done = reload("--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["generation"] == 1
    assert done.stderr.startswith("  iris/model.toml: ")


def test_the_running_stack_s_own_address_is_used(
    admin: AdminServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command with other settings than the stack was started with finds it by the record in the run folder."""
    address = f"127.0.0.1:{admin.server.server_port}"
    record = {"run_dir": str(tmp_path), "repository": str(tmp_path / "m"), "listen": "h:1", "admin_listen": address}
    (tmp_path / "stack.json").write_text(json.dumps(record))
    monkeypatch.setenv("TABLESIDE__SERVER__ADMIN_LISTEN", "127.0.0.1:9")
    admin.answers(200, {"generation": 1, "workers": [], "late": []})
    slot = worker_slots.acquire(tmp_path / "worker_slots")
    try:
        assert reload().exit_code == 0
    finally:
        slot.release()
