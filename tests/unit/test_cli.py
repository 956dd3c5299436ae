"""The `tableside` command: results on stdout, progress and errors on stderr, errors in one line."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression

from tableside.cli import main
from tableside.cli.logs import render
from tableside.repository import paths


@pytest.fixture
def trained_files(tmp_path: Path) -> tuple[Path, Path, Any, pd.DataFrame]:
    """A joblib file and a CSV sample that still holds the target."""
    data = load_wine(as_frame=True)
    estimator = LogisticRegression(max_iter=5000).fit(data.data, data.target)
    joblib.dump(estimator, tmp_path / "model.joblib")
    data.frame.to_csv(tmp_path / "sample.csv", index=False)
    return tmp_path / "model.joblib", tmp_path / "sample.csv", estimator, data.frame


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def publish(files: tuple[Any, ...], root: Path, *more: str) -> Result:
    return call("publish", "wines", files[0], "--sample", files[1], "--target", "target", "--repository", root, *more)


def test_publish_says_what_it_made(trained_files: tuple[Any, ...], tmp_path: Path) -> None:
    """A version appears, stdout names it, the next publish makes the next one, --json is one object."""
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
    """A sample may be a Parquet file."""
    trained_files[3].to_parquet(tmp_path / "sample.parquet")
    done = publish((trained_files[0], tmp_path / "sample.parquet"), tmp_path / "models")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"estimator": "none.joblib"}, "none.joblib: no such file"),
        ({"sample": "none.csv"}, "none.csv"),
        ({"target": "price"}, "no target column 'price'"),
        ({"target": None}, "try --target target"),
        ({"name": "../x"}, "no model name"),
        ({"alias": "1st"}, "no alias"),
    ],
)
def test_what_cannot_be_published_is_said_in_one_line(
    trained_files: tuple[Any, ...], tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    """Exit code 2, one line that names the thing, and no version."""
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
    """A list, or an estimator nobody fitted, is named for what it is."""
    joblib.dump(content, tmp_path / "x.joblib")
    (tmp_path / "s.csv").write_text("a\n1\n")
    done = call("publish", "m", tmp_path / "x.joblib", "--sample", tmp_path / "s.csv", "--repository", tmp_path / "r")
    assert done.exit_code == 2
    assert expected in done.stderr


def test_show_tells_the_contract_and_a_curl_line(trained_files: tuple[Any, ...], tmp_path: Path) -> None:
    """Columns and outputs for people, the whole contract as JSON, a curl line with a body that parses."""
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


def test_verify_fails_for_a_damaged_artifact(trained_files: tuple[Any, ...], tmp_path: Path) -> None:
    """Exit code 0 while the golden rows hold; 1, with the reason, after one byte of the artifact has changed."""
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
    """A broken contract is a row with its reason, not an end of the list."""
    root = tmp_path / "models"
    publish(trained_files, root)
    path = root / "wines" / "1" / paths.CONTRACT
    path.chmod(0o644)
    path.write_text("{")
    rows = json.loads(call("list", "--repository", root, "--json").stdout)
    assert paths.CONTRACT in rows[0]["problem"]
    assert call("list", "--repository", tmp_path / "none").stdout.startswith("no models in")


def test_logs_are_merged_by_time_and_rendered(tmp_path: Path) -> None:
    """JSON lines become text in the order of their time; other lines stay; a request's lines can be picked."""
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
    assert "plain words" in first, "a line without a time goes with the line before it"
    with (folder / "web.log").open("a") as stream:
        stream.write('{"event":"newest","time":"2026-01-01T00:00:03Z"}\n')
    assert "newest" in call("logs", "--run-dir", tmp_path, "-n", "1").stdout
    assert "no log line with request id nope in" in call("logs", "--run-dir", tmp_path, "--request-id", "nope").stderr
    only = call("logs", "--run-dir", tmp_path, "--request-id", "r1", "--json").stdout.splitlines()
    assert [json.loads(line)["event"] for line in only] == ["later"]
    assert "no log files in" in call("logs", "--run-dir", tmp_path / "none").stderr


def test_a_rendered_exception_stands_below_its_line() -> None:
    """The traceback keeps its own lines."""
    assert render('{"event":"failed","exception":"Traceback\\n  x"}').endswith("failed\nTraceback\n  x")


@pytest.mark.processes
def test_logs_follow_what_is_written_and_a_rotated_file(tmp_path: Path) -> None:
    """-f shows lines as they come, and goes on with a file that was begun anew."""
    folder = tmp_path / "log"
    folder.mkdir()
    file = folder / "web.log"
    file.write_text('{"event":"old, and quite a long line so that the next file is shorter"}\n')
    command = [sys.executable, "-u", "-m", "tableside.cli", "logs", "-f", "-n", "0", "--run-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            time.sleep(1.5)
            with file.open("a") as stream:
                stream.write('{"event":"first"}\n')
            assert "first" in process.stdout.readline()
            file.write_text('{"event":"second"}\n')
            assert "second" in process.stdout.readline()
        finally:
            process.kill()


@pytest.mark.processes
def test_help_is_quick() -> None:
    """`tableside --help` imports neither scikit-learn nor pandas nor numpy."""
    code = "import sys; from tableside.cli import main; main(['--help'], standalone_mode=False)"
    code += "; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "publish" in done.stdout
    loaded = done.stdout.splitlines()[-1]
    assert not [name for name in ("'sklearn'", "'pandas'", "'numpy'", "'rich'") if name in loaded]


def test_config_shows_the_settings_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """`config` prints TOML, or JSON, of what the environment and the file came to; an unknown setting is named."""
    monkeypatch.setenv("TABLESIDE__SERVER__WORKERS", "7")
    assert json.loads(call("config", "--json").stdout)["server"]["workers"] == 7
    assert "workers = 7" in call("config").stdout
    monkeypatch.setenv("TABLESIDE__SERVER__WROKERS", "7")
    done = call("config")
    assert (done.exit_code, "TABLESIDE__SERVER__WROKERS" in done.stderr) == (2, True)
