"""The `tableside` command prints results on stdout, progress on stderr, and each error as one line with exit code 2."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import joblib
import orjson
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression

from tableside.cli import main
from tableside.cli.logs.lines import render
from tableside.repository import paths


@pytest.fixture
def trained_files(tmp_path: Path) -> tuple[Path, Path, Any, pd.DataFrame]:
    """A joblib file, a CSV sample with the target column, the estimator and the frame."""
    data = load_wine(as_frame=True)
    estimator = LogisticRegression(max_iter=5000).fit(data.data, data.target)
    joblib.dump(estimator, tmp_path / "model.joblib")
    data.frame.to_csv(tmp_path / "sample.csv", index=False)
    return tmp_path / "model.joblib", tmp_path / "sample.csv", estimator, data.frame


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def publish(files: tuple[Any, ...], root: Path, *more: str) -> Result:
    return call("publish", "wines", files[0], "--sample", files[1], "--target", "target", "--repository", root, *more)


def test_publish_prints_the_new_version(trained_files: tuple[Any, ...], tmp_path: Path) -> None:
    """Each publish makes the next version; stdout names it as text or, with --json, as one object."""
    root = tmp_path / "models"
    first = publish(trained_files, root, "--alias", "best")
    assert first.exit_code == 0, first.output
    assert f"published wines/1 in {root / 'wines' / '1'}" in first.stdout
    second = publish(trained_files, root, "--json")
    assert json.loads(second.stdout)["version"] == 2
    assert paths.versions(root, "wines") == [1, 2]
    rows = json.loads(call("list", "--repository", root, "--json").stdout)
    assert [(row["version"], row["aliases"]) for row in rows] == [(1, ["best"]), (2, [])]


def test_publish_reads_parquet(trained_files: tuple[Any, ...], tmp_path: Path) -> None:
    """`publish --sample` reads a Parquet file."""
    trained_files[3].to_parquet(tmp_path / "sample.parquet")
    done = publish((trained_files[0], tmp_path / "sample.parquet"), tmp_path / "models")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"estimator": "none.joblib"}, "none.joblib: no such file"),
        ({"sample": "none.csv"}, "none.csv"),
        ({"target": "price"}, "no target column 'price'"),
        ({"target": None}, "add --target target"),
        ({"name": "../x"}, "not a valid model name"),
        ({"alias": "1st"}, "not a valid alias"),
    ],
)
def test_a_failed_publish_is_one_line(
    trained_files: tuple[Any, ...], tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    """A publish that fails exits with code 2, prints one line that names the cause, and writes no version."""
    words = {"name": "wines", "estimator": trained_files[0], "sample": trained_files[1], "target": "target", **change}
    options = [part for key in ("target", "alias") if words.get(key) for part in (f"--{key}", words[key])]
    done = call(
        "publish", words["name"], words["estimator"], "--sample", words["sample"], *options,
        "--repository", tmp_path / "models",
    )  # fmt: skip
    assert done.exit_code == 2
    errors = [line for line in done.stderr.splitlines() if not line.startswith("... ")]
    assert len(errors) == 1
    assert expected in errors[0]
    assert paths.versions(tmp_path / "models", "wines") == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [([1, 2, 3], "not an estimator"), (LogisticRegression(), "is not fitted")],
)
def test_a_file_without_a_fitted_estimator_is_refused(tmp_path: Path, content: Any, expected: str) -> None:
    """A file with another object, or with an estimator that is not fitted, is rejected with the reason."""
    joblib.dump(content, tmp_path / "x.joblib")
    (tmp_path / "s.csv").write_text("a\n1\n")
    done = call("publish", "m", tmp_path / "x.joblib", "--sample", tmp_path / "s.csv", "--repository", tmp_path / "r")
    assert done.exit_code == 2
    assert expected in done.stderr


def test_show_prints_the_contract_and_a_curl_command(trained_files: tuple[Any, ...], tmp_path: Path) -> None:
    """`show` prints columns and outputs, with --json the whole contract, with --curl a command whose body parses."""
    root = tmp_path / "models"
    publish(trained_files, root)
    shown = call("show", "wines", "--repository", root)
    assert "alcohol" in shown.stdout
    assert "predict_proba" in shown.stdout
    assert json.loads(call("show", "wines/1", "--repository", root, "--json").stdout)["version"] == 1
    line = call("show", "wines", "--curl", "--repository", root).stdout
    body = json.loads(shlex.split(line)[-1])
    assert set(body["instances"][0]) == set(trained_files[3].columns) - {"target"}
    missing = call("show", "wines/7", "--repository", root)
    assert (missing.exit_code, "no version or alias '7'" in missing.stderr) == (2, True)


@pytest.mark.slow
def test_verify_fails_for_a_damaged_artifact(trained_files: tuple[Any, ...], tmp_path: Path) -> None:
    """`verify` exits with 0 while the golden rows hold, and with 1 and the reason after one byte has changed."""
    root = tmp_path / "models"
    publish(trained_files, root)
    good = call("verify", "--repository", root)
    assert good.exit_code == 0, good.output
    assert "golden rows answered as at publish" in good.stdout
    artifact = root / "wines" / "1" / paths.ARTIFACT
    content = bytearray(artifact.read_bytes())
    content[len(content) // 2] ^= 1
    artifact.chmod(0o644)
    artifact.write_bytes(content)
    bad = call("verify", "wines", "--repository", root, "--json")
    assert bad.exit_code == 1
    assert "damaged" in json.loads(bad.stdout)[0]["reason"]


def test_list_shows_a_version_whose_contract_cannot_be_read(trained_files: tuple[Any, ...], tmp_path: Path) -> None:
    """A version with a broken contract is a row with the reason, and the list goes on."""
    root = tmp_path / "models"
    publish(trained_files, root)
    path = root / "wines" / "1" / paths.CONTRACT
    path.chmod(0o644)
    path.write_text("{")
    rows = json.loads(call("list", "--repository", root, "--json").stdout)
    assert paths.CONTRACT in rows[0]["problem"]
    assert call("list", "--repository", tmp_path / "none").stdout.startswith("no models in")


def test_logs_are_merged_by_time_and_rendered(tmp_path: Path) -> None:
    """Log lines are printed in the order of their time; --request-id and -n choose among them."""
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "web.log").write_text(
        '{"event":"later","level":"info","time":"2026-01-01T00:00:02Z","request_id":"r1"}\nplain words\n'
    )
    (folder / "nginx-access.log").write_text('{"time":"2026-01-01T00:00:01+00:00","source":"nginx","path":"/v2"}\n')
    text = call("logs", "--run-dir", tmp_path).stdout
    assert text.index("path=/v2") < text.index("later")
    assert text.index("later") < text.index("plain words")
    first = call("logs", "--run-dir", tmp_path, "-n", "1").stdout
    assert "plain words" in first, "a line without a time belongs to the line before it"
    with (folder / "web.log").open("a") as stream:
        stream.write('{"event":"newest","time":"2026-01-01T00:00:03Z"}\n')
    assert "newest" in call("logs", "--run-dir", tmp_path, "-n", "1").stdout
    none = call("logs", "--run-dir", tmp_path, "--request-id", "nope").stderr
    assert "0 of 4 lines match; the first line is of 2026-01-01T00:00:01Z" in none
    only = call("logs", "--run-dir", tmp_path, "--request-id", "r1", "--json").stdout.splitlines()
    assert [json.loads(only[0])["event"], *only[1:]] == ["later", "plain words"]
    assert "no log files in" in call("logs", "--run-dir", tmp_path / "none").stderr


def test_an_exception_is_printed_below_its_line() -> None:
    """A traceback in a log line is printed on lines of its own."""
    assert render('{"event":"failed","exception":"Traceback\\n  x"}').endswith("failed\nTraceback\n  x")


@pytest.mark.processes
def test_logs_follow_what_is_written_and_a_rotated_file(tmp_path: Path) -> None:
    """`logs -f` prints lines as they are written, also after a file was rotated."""
    folder = tmp_path / "log"
    folder.mkdir()
    file = folder / "web.log"
    file.write_text('{"event":"old, and quite a long line so that the next file is shorter"}\n')
    command = [sys.executable, "-u", "-m", "tableside.cli", "logs", "-f", "-n", "0", "--run-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first = _line_after_writes(file, process.stdout)
            assert "first" in first
            file.write_text('{"event":"second"}\n')
            assert "second" in next(line for line in process.stdout if "first" not in line)
        finally:
            process.kill()


def _line_after_writes(file: Path, output: IO[str]) -> str:
    """Return the first line of the output. Lines are written until then, because the reader needs time to start."""
    is_read = threading.Event()

    def write() -> None:
        while not is_read.wait(0.2):
            with file.open("a") as stream:
                stream.write('{"event":"first"}\n')

    writer = threading.Thread(target=write)
    writer.start()
    try:
        return output.readline()
    finally:
        is_read.set()
        writer.join()


@pytest.mark.processes
def test_help_is_quick() -> None:
    """`tableside --help` imports neither scikit-learn nor pandas, numpy or rich."""
    code = "import sys; from tableside.cli import main; main(['--help'], standalone_mode=False)"
    code += "; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "publish" in done.stdout
    loaded = done.stdout.splitlines()[-1]
    assert not [name for name in ("'sklearn'", "'pandas'", "'numpy'", "'rich'") if name in loaded]


@pytest.mark.processes
@pytest.mark.parametrize("words", [["list"], ["show", "iris"], ["show", "iris", "--curl"]], ids=" ".join)
def test_what_reads_contracts_only_imports_no_library_of_models(repository: Path, words: list[str]) -> None:
    """`list` and `show` answer in a fraction of the time that scikit-learn and pandas take to import."""
    code = f"import sys; from tableside.cli import main; main({[*words, '--repository', str(repository)]})"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True)
    assert "iris" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"tableside.cli"} == imported & {"tableside.cli", "sklearn", "pandas", "scipy"}


@pytest.mark.processes
def test_what_changes_a_running_stack_imports_no_library_of_models() -> None:
    """The commands that switch workers wait for these, and load nothing themselves."""
    code = "import sys; from tableside.serving import changes; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not [name for name in ("'sklearn'", "'pandas'", "'scipy'", "'onnxruntime'") if name in done.stdout]


def test_config_shows_the_settings_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """`config` prints the settings in force as TOML or JSON; an unknown setting is named."""
    monkeypatch.setenv("TABLESIDE__SERVER__WORKERS", "7")
    assert json.loads(call("config", "--json").stdout)["server"]["workers"] == 7
    assert "workers = 7" in call("config").stdout
    monkeypatch.setenv("TABLESIDE__SERVER__WROKERS", "7")
    done = call("config")
    assert (done.exit_code, "TABLESIDE__SERVER__WROKERS" in done.stderr) == (2, True)


def test_list_names_an_alias_without_a_version(trained_files: tuple[Any, ...], tmp_path: Path) -> None:
    """An alias of a missing version, or a column of none, is a problem in the row of the model's newest version."""
    root = tmp_path / "models"
    publish(trained_files, root)
    (root / "wines" / "model.toml").write_text("[aliases]\nbest = 9\n")
    (row,) = json.loads(call("list", "--repository", root, "--json").stdout)
    assert row["problem"] == "alias 'best' in model.toml points at version 9, which does not exist"
    (root / "wines" / "model.toml").write_text("[columns.missing_words]\nhue_ = ['-']\n")
    (row,) = json.loads(call("list", "--repository", root, "--json").stdout)
    assert "missing_words in model.toml names the column 'hue_', which no served version has" in row["problem"]


def test_a_joblib_file_needs_a_sample(trained_files: tuple[Any, ...], tmp_path: Path) -> None:
    """Without --sample a joblib file is rejected, and the line says what to add."""
    done = call("publish", "wines", trained_files[0], "--repository", tmp_path / "models")
    assert done.exit_code == 2
    assert "add --sample FILE with rows like the training data" in done.stderr


def test_verify_of_an_unknown_model_is_one_line(tmp_path: Path) -> None:
    """A model that is not in the repository is an error with exit code 2, not a failed verification."""
    (tmp_path / "models").mkdir()
    done = call("verify", "nope", "--repository", tmp_path / "models")
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    assert "nope" in done.stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("plain words", "plain words"),
        ("[1, 2]", "[1, 2]"),
        ('{"event":"e","a":1,"b":"x y"}', f"{'':23} {'info':7} -: e a=1 b=x y"),
        (
            '{"time":"2026-01-01T00:00:00.123456Z","level":"error","source":"web","event":"e"}',
            f"2026-01-01T00:00:00.123 {'error':7} web: e",
        ),
    ],
)
def test_a_log_line_as_text(line: str, expected: str) -> None:
    """A JSON object becomes time, level, source, event and the other fields; another line stays as it is."""
    assert render(line) == expected


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v1/\x1b]0;owned\x07", r"path=/v1/\x1b]0;owned\x07"),
        ("/x\n2026-01-01T00:00:00 info web: forged", r"path=/x\n2026-01-01T00:00:00 info web: forged"),
        ("/x status=200", 'path="/x status=200"'),
        ("/\u202egnp.x", r"path=/\u202egnp.x"),
        ("/a/\x9b31m", r"path=/a/\x9b31m"),
    ],
    ids=["terminal title", "second line", "second field", "direction", "C1"],
)
def test_a_log_line_cannot_lie(path: str, shown: str) -> None:
    """What a client sends can neither change the terminal nor look like another line or field."""
    line = orjson.dumps({"event": "request", "path": path, "status": 404}).decode()
    assert render(line).endswith(f"-: request {shown} status=404")


def test_lines_of_other_programs_are_escaped() -> None:
    """nginx writes some bytes of a request as they are."""
    assert render("nginx: \x1b[2Jclient sent") == r"nginx: \x1b[2Jclient sent"
