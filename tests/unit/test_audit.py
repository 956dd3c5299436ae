"""`make audit` reports known weaknesses of locked packages; SECURITY.md names tests that exist."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests import audit

pytestmark = pytest.mark.no_greenlets
PROJECT = Path(__file__).resolve().parents[2]


class Database(BaseHTTPRequestHandler):
    """Answers as OSV does: numpy has one known weakness."""

    def do_POST(self) -> None:
        queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        known = [{"vulns": [{"id": "X-1"}]} if each["package"]["name"] == "numpy" else {} for each in queries]
        body = json.dumps({"results": known}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def database() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Database) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_finding_is_reported_until_it_is_accepted(
    database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Exit status 1 with the package and its version; 0 once the finding is listed with a reason."""
    numpy = dict(audit.locked())["numpy"]
    assert audit.main(database) == 1
    said = capsys.readouterr().out
    assert said.startswith("X-1  numpy==")
    assert f"numpy=={numpy}" in said
    assert said.endswith(f"{len(audit.locked())} packages, 1 findings, 1 of them not accepted\n")
    (tmp_path / "accepted.toml").write_text('[accepted]\nX-1 = "not used here"\n')
    monkeypatch.setattr(audit.accepted, "__defaults__", (tmp_path / "accepted.toml",))
    assert audit.main(database) == 0
    assert "accepted: not used here" in capsys.readouterr().out


def test_a_database_out_of_reach_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    """One line on stderr, and exit status 2."""
    assert audit.main("http://127.0.0.1:9") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "nothing was audited" in lines[0]


def test_an_accepted_finding_has_a_reason(tmp_path: Path) -> None:
    """A list without reasons would only hide findings."""
    (tmp_path / "accepted.toml").write_text('[accepted]\nX-1 = " "\n')
    with pytest.raises(ValueError, match="no reason for X-1"):
        audit.accepted(tmp_path / "accepted.toml")


def test_each_promise_of_security_md_names_tests_that_exist() -> None:
    """Each row of the table of promises has at least one file of tests, and that file has tests."""
    text = (PROJECT / "SECURITY.md").read_text("utf-8")
    table = text.partition("## Which promise is tested where")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "| test |" not in line]
    assert len(rows) > 10
    for row in rows:
        files = re.findall(r"`(tests/[^`:]+\.py)(?:::(\w+))?`", row)
        assert files, row
        for file, name in files:
            content = (PROJECT / file).read_text("utf-8")
            assert f"def {name or 'test_'}" in content, (row, file)
