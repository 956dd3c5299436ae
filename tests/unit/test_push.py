"""`tableside push` and what speaks with a server on another machine: addresses, keys, answers."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tableside.cli import main, remote
from tableside.errors import StackError
from tests.certificates import Authority
from tests.conftest import KEY

pytestmark = pytest.mark.processes


def call(*words: str, key: str = KEY) -> Result:
    return CliRunner(env={"TABLESIDE_KEY": key}).invoke(main, list(words))


@pytest.mark.slow
def test_a_version_is_pushed_to_a_server(server: str, repository: Path, tmp_path: Path) -> None:
    """From the repository here, with its number; the command ends when it is served. The key is in no line."""
    done = call("push", "wine", "1", "--to", server, "--repository", str(repository))
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"published wine/1 on {server}\n  ")
    assert "served by 1 workers, generation 2" in done.stdout
    assert (tmp_path / "models" / "wine" / "1" / "contract.json").is_file()
    assert KEY not in done.output


@pytest.mark.parametrize("key", ["", "wrong", "a b", "x\ny"])
def test_a_key_that_is_wrong_or_missing_is_said(server: str, repository: Path, key: str) -> None:
    """Nothing of it is shown."""
    done = call("push", "wine", "1", "--to", server, "--repository", str(repository), key=key)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "key" in done.stderr
    assert not key or f"{key}\n" not in done.stderr


def test_an_error_of_the_server_is_printed(server: str, repository: Path) -> None:
    """As a line, with what to do about it."""
    done = call("push", "stats", str(repository / "wine" / "1"), "--to", server)
    assert done.exit_code == 2
    assert "the model name 'stats' is reserved" in done.stderr
    nothing = call("push", "wine", "1", "--to", server.rpartition(":")[0] + ":9", "--repository", str(repository))
    assert "no answer from" in nothing.stderr


@pytest.mark.parametrize(
    "url", ["models.example.com", "ftp://x", "http://", "http://x:99999", "https://me:word@host", "https://x/?a=1"]
)
def test_an_address_is_checked(url: str) -> None:
    """A password in it is not repeated."""
    with pytest.raises(StackError) as caught:
        remote.of_url(url, None)
    assert "word" not in str(caught.value).replace("password", "")


def test_a_key_comes_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file outranks the variable; without TLS beyond this machine a line warns."""
    (tmp_path / "key").write_text("abc\n")
    remote.of_url("https://models.example.com:8081/ml", tmp_path / "key")
    assert capsys.readouterr().err == ""
    remote.of_url("http://models.example.com:8081", tmp_path / "key")
    assert "has no TLS" in capsys.readouterr().err
    with pytest.raises(StackError, match="cannot read the key"):
        remote.of_url("https://x", tmp_path / "missing")


def test_what_is_pushed_is_checked_here(repository: Path, tmp_path: Path) -> None:
    """Without an address, a version, a sample or a file, nothing is sent."""
    artifact = str(repository / "iris" / "1" / "model.skops")
    (tmp_path / "empty").mkdir()
    to = ("--to", "http://127.0.0.1:9", "--repository", str(repository))
    for words, said in (
        (("push", "iris", "1"), "say where to"),
        (("push", "iris", "7", *to), "no version or alias"),
        (("push", "iris", artifact, *to), "needs a sample"),
        (("push", "iris", artifact, "--sample", artifact, *to), "no .csv or .parquet"),
        (("push", "iris", "1", "--sample", artifact, *to), "goes with a file that holds a model"),
        (("push", "iris", str(tmp_path / "empty"), *to), "has no files"),
    ):
        done = call(*words)
        assert (done.exit_code, said in done.stderr) == (2, True), done.output


class Audit(BaseHTTPRequestHandler):
    """Answers every request with an empty audit log."""

    def do_GET(self) -> None:
        body = b'{"lines": []}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_the_certificate_of_a_server_is_checked(tmp_path: Path) -> None:
    """The key is sent to nobody whose certificate is not trusted; SSL_CERT_FILE names more that are."""
    authority = Authority(tmp_path / "authority")
    pair = authority.pair("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with HTTPServer(("127.0.0.1", 0), Audit) as serving:
        serving.socket = context.wrap_socket(serving.socket, server_side=True)
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        words = ["audit", "--json", "--to", f"https://127.0.0.1:{serving.server_port}"]
        unknown = call(*words)
        trusted = CliRunner(env={"TABLESIDE_KEY": KEY, "SSL_CERT_FILE": str(authority.root)}).invoke(main, words)
        serving.shutdown()
        thread.join()
    assert (unknown.exit_code, "certificate verify failed" in unknown.stderr) == (2, True), unknown.output
    assert trusted.exit_code == 0, trusted.output
