"""The whole stack, used as a user does: predictions, banner, restarts, errors, logs."""

from __future__ import annotations

import gzip
import http.client
import json
import shlex
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest

from tableside.deployment.stack_processes import Role, find
from tests.e2e import media_types
from tests.e2e.conftest import BIN, Stack, until
from tests.e2e.load_loops import kept_loop, request

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def stack(shared_stack: Stack) -> Stack:
    """The stack of several files."""
    return shared_stack


def as_json(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return json.loads(frame.to_json(orient="records", double_precision=15))


def exact(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows by column name with full float precision and None for missing values."""
    return [{k: None if v is None or v != v else v for k, v in row.items()} for row in frame.to_dict("records")]


@pytest.mark.parametrize("name", ["iris", "breast-cancer", "diabetes", "wine"])
def test_every_example_answers_as_its_estimator(stack: Stack, trained: dict[str, Any], name: str) -> None:
    """For all rows of the sample, the answers through nginx by V1 and V2 equal the estimator's bit for bit."""
    estimator, sample = trained[name]
    expected = estimator.predict(sample).tolist()
    status, content, _ = stack.call(f"/v1/models/{name}:predict", {"instances": exact(sample)})
    assert status == 200, content
    assert content["predictions"] == expected
    inputs = [
        {"name": column, "shape": [len(sample)], "datatype": datatype_of(sample[column]), "data": cells}
        for column, cells in exact_columns(sample).items()
    ]
    wanted = [{"name": "predict"}] + ([{"name": "predict_proba"}] if hasattr(estimator, "predict_proba") else [])
    status, content, _ = stack.call(f"/v2/models/{name}/infer", {"inputs": inputs, "outputs": wanted})
    assert status == 200, content
    assert content["outputs"][0]["data"] == expected
    if len(wanted) == 2:
        probabilities = np.array(content["outputs"][1]["data"]).reshape(content["outputs"][1]["shape"])
        np.testing.assert_array_equal(probabilities, estimator.predict_proba(sample))


def exact_columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    rows = exact(frame)
    return {column: [row[column] for row in rows] for column in frame.columns}


def datatype_of(series: Any) -> str:
    return {"f": "FP64", "i": "INT64", "b": "BOOL"}.get(series.dtype.kind, "BYTES")


def test_lines_arrays_and_csv_through_nginx(stack: Stack, trained: dict[str, Any]) -> None:
    """Bodies and answers of SageMaker's media types hold the estimator's answers, small and large; probes of MLflow."""
    media_types.check(stack, trained)
    assert stack.call("/health")[:2] == (200, {"ready": True})
    assert stack.call("/version")[0] == 200
    assert stack.call("/models/iris")[1]["modelName"] == "iris"
    assert stack.call("/health", admin=True)[0] == 200


def test_banner_shows_what_to_do_and_its_curl_works(stack: Stack) -> None:
    """The banner has the addresses, the key's file and a curl command that works."""
    output = stack.folder / "run.out"
    assert until(lambda: "curl" in output.read_text())
    text = output.read_text()
    assert f"127.0.0.1:{stack.data}" in text
    assert f"127.0.0.1:{stack.admin}" in text
    assert str(stack.run_dir / "admin.key") in text
    line = next(line for line in text.splitlines() if line.strip().startswith("curl"))
    done = subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=600)
    assert json.loads(done.stdout) == {"predictions": ["setosa"]}


def test_the_doctor_finds_no_mistake_in_a_running_stack(stack: Stack) -> None:
    """`tableside doctor` reads what runs, and has no error for it; nor had the start a line of one.

    A shell elsewhere, which knows the run folder alone and may open fewer files, gets the same.
    """
    shell = ["sh", "-c", 'ulimit -n 2048 && exec "$0" "$@"', str(BIN / "tableside")]
    for done in (stack.cli("doctor", "--json"), stack.call_elsewhere(*shell, "doctor", "--json")):
        content = json.loads(done.stdout)
        assert (done.returncode, content["errors"]) == (0, 0), content
        assert [each for each in content["findings"] if each["about"] in ("settings", "timeouts", "keep-alive")] == []
    assert "tableside: error" not in (stack.folder / "run.out").read_text()


def test_supervisorctl_finds_the_stack(stack: Stack) -> None:
    """`supervisorctl -c supervisord.conf status` shows every program of the stack running."""
    assert until(lambda: "STARTING" not in stack.ctl("status"))
    lines = stack.ctl("status").strip().splitlines()
    assert {line.split()[0] for line in lines} == {"web", "nginx", "sockets:sockets_0", "sockets:sockets_1"}
    assert all(line.split()[1] == "RUNNING" for line in lines)


def test_nginx_restarts_on_the_same_sockets(stack: Stack) -> None:
    """After `restart 'nginx:*'` the data plane answers on the same sockets, and its errors are counted on."""

    def refused() -> bool:
        return stack.call("/v2", method="TRACE")[0] == 405

    before = sample(stack, 'nginx_answers_total{code="405",plane="data"}')
    assert refused()
    stack.ctl("signal", "HUP", "nginx")
    assert refused()
    assert "started" in stack.ctl("restart", "nginx:*")
    stack.wait_ready()
    assert stack.call("/v2")[1]["name"] == "tableside"
    assert refused()
    assert until(lambda: sample(stack, 'nginx_answers_total{code="405",plane="data"}') == before + 3, 20)


def sample(stack: Stack, name: str) -> float:
    """Return the value of a metric, by its name and labels as a scrape shows them; -1 if it has no sample."""
    lines = stack.call("/metrics", admin=True)[1].splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(f"tableside_{name} ")), -1.0)


def test_the_metrics_of_the_whole_stack(stack: Stack) -> None:
    """Processes, their files, disks, workers and the event loop, as the kernel and the workers say."""
    stack.wait_loaded()
    assert until(lambda: sample(stack, "workers_ready") == 2)
    assert sample(stack, "workers_wanted") == 2
    assert {
        program: sample(stack, f'processes{{program="{program}"}}')
        for program in ("supervisord", "sockets", "web", "gunicorn", "worker", "model")
    } == {"supervisord": 1, "sockets": 2, "web": 1, "gunicorn": 1, "worker": 2, "model": 0}
    assert sample(stack, 'processes{program="nginx"}') >= 5, "a keeper, and a master and a worker of each plane"
    assert sample(stack, 'process_memory_bytes{program="worker"}') > 50e6
    assert 10 < sample(stack, 'process_open_files{program="worker"}') < sample(stack, "open_files_limit")
    for folder, label in ((stack.run_dir, "run"), (stack.folder / "models", "models")):
        assert sample(stack, f'disk_size_bytes{{folder="{label}"}}') == shutil.disk_usage(folder).total
        free = sample(stack, f'disk_free_bytes{{folder="{label}"}}')
        assert 0 < free < shutil.disk_usage(folder).total
    assert stack.process is not None
    assert abs(sample(stack, "start_timestamp_seconds") - (stack.folder / "run.out").stat().st_ctime) < 600
    beats = sample(stack, "event_loop_lag_seconds_count")
    assert until(lambda: sample(stack, "event_loop_lag_seconds_count") >= beats + 4, 30)
    assert sample(stack, 'model_loads_total{model="iris",result="loaded",version="1"}') >= 2
    alive = sample(stack, 'processes{program="worker"}')
    lines = stack.call("/metrics", admin=True)[1].splitlines()
    ended = sum(float(line.split()[-1]) for line in lines if line.startswith("tableside_worker_ends_total"))
    assert sample(stack, "worker_starts_total") == alive + ended


def test_planes_are_apart(stack: Stack) -> None:
    """Metrics and admin routes exist on the control plane only, where admin routes need the key."""
    for path in ("/metrics", "/admin/api/models", "/metrics/../v2/health/live/../../../metrics", "/%6Detrics"):
        assert stack.call(path)[0] == 404
    assert stack.call("/metrics", admin=True)[0] == 200
    status, content, headers = stack.call("/admin/api/models", admin=True)
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert content["status"] == 401
    assert {model["name"] for model in stack.admin_call("/admin/api/models")["models"]} >= {"iris", "wine"}
    body = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
    assert stack.call("/v1/models/iris:predict", body, admin=True)[1] == {"predictions": ["setosa"]}


def test_a_version_published_while_serving_is_served_after_reload_by_every_worker(
    stack: Stack, trained: dict[str, Any], tmp_path: Any
) -> None:
    """After a reload through the admin API has answered 200, every worker serves the newly published version."""
    estimator, sample = trained["diabetes"]
    joblib.dump(estimator, tmp_path / "model.joblib")
    sample.to_csv(tmp_path / "sample.csv", index=False)
    done = stack.cli(
        "publish", "late", str(tmp_path / "model.joblib"), "--sample", str(tmp_path / "sample.csv"), "--json"
    )
    assert done.returncode == 0, done.stderr
    assert stack.call("/v2/models/late")[0] == 404
    answer = stack.admin_call("/admin/api/reload", "POST")
    assert answer["complete"] is True
    for _ in range(10):
        status, content, _ = stack.call("/v1/models/late:predict", {"instances": exact(sample.iloc[:2])})
        assert status == 200
        assert content["predictions"] == estimator.predict(sample.iloc[:2]).tolist()


def test_stop_all_and_start_all(stack: Stack) -> None:
    """`supervisorctl stop all` ends every program and its servers; `start all` serves again on the same ports."""
    assert stack.ctl("stop", "all").count("stopped") == 4

    def ended() -> bool:
        return {process.role for process in find(stack.run_dir)} == {Role.SUPERVISORD}

    assert until(ended, 60), find(stack.run_dir)
    with pytest.raises(OSError, match="refused"):
        stack.call("/v2/health/live")
    stack.ctl("start", "all")
    stack.wait_ready()
    stack.wait_loaded()
    assert stack.call("/v1/models/iris:predict", {"instances": [[5.1, 3.5, 1.4, 0.2]]})[0] == 200


END = b"Host: localhost\r\nConnection: close\r\n"
MISTAKES = {
    b"NO SUCH\r\n\r\n": (400, ""),
    b"GET /v2?" + b"a" * 7997 + b" HTTP/1.1\r\n" + END + b"\r\n": (414, "server.max_url_bytes (8000 bytes)"),
    b"GET /v2?" + b"a" * 9000 + b" HTTP/1.1\r\n" + END + b"\r\n": (414, "server.max_url_bytes"),
    b"GET /v2 HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n" + END + b"\r\n": (431, "server.max_header_bytes"),
    b"GET /v2 HTTP/1.1\r\n" + END + b"X: y\r\n" * 103 + b"\r\n": (431, "more than 100 headers, see server.max_headers"),
    b"POST /v1/models/iris:predict HTTP/1.1\r\n" + END + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n": (
        400,
        "not valid",
    ),
    b"POST /v1/models/iris:predict HTTP/1.1\r\n" + END + b"Content-Length: 99999999\r\n\r\n": (
        413,
        "server.max_body_bytes",
    ),
    b"GET / HTTP/1.1\r\n" + END + b"Transfer-Encoding: zip\r\n\r\n": (501, ""),
}
"""What clients get wrong, the status, and what the error names: the same with nginx and without."""


@pytest.fixture(scope="module")
def bare(make_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A stack without nginx."""
    started = make_stack(TABLESIDE__SERVER__NGINX="off")
    yield started
    started.stop()


def test_stacks_run_side_by_side_and_without_nginx(bare: Stack, stack: Stack, trained: dict[str, Any]) -> None:
    """Two stacks run side by side; with nginx off gunicorn answers both ports and keeps the planes separate.

    Mistakes of clients have the same status with both, a JSON error, and an id.
    """
    body = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
    assert bare.call("/v1/models/iris:predict", body)[1] == {"predictions": ["setosa"]}
    media_types.check(bare, trained)
    assert bare.call("/health")[0] == 200
    assert bare.call("/metrics")[0] == 404
    assert bare.call("/metrics", admin=True)[0] == 200
    assert until(lambda: sample(bare, "workers_ready") == 2)
    assert sample(bare, 'nginx_answers_total{code="502",plane="data"}') == -1
    assert stack.call("/v1/models/iris:predict", body)[1] == {"predictions": ["setosa"]}
    for one in (bare, stack):
        for sent, (status, named) in MISTAKES.items():
            with socket.create_connection(("127.0.0.1", one.data), timeout=60) as raw:
                raw.sendall(sent)
                answer = http.client.HTTPResponse(raw)
                answer.begin()
                error = json.loads(answer.read())
            assert (answer.status, answer.headers["Content-Type"]) == (status, "application/json"), (sent[:60], error)
            assert (error["status"], named in error["error"]) == (status, True), error
            assert answer.headers["X-Request-ID"] == error["instance"]


def test_no_connection_starves(bare: Stack, record_property: Callable[[str, object], None]) -> None:
    """Of 48 busy connections to the workers, each is answered about as often as the others."""
    bare.wait_loaded()
    counts = kept_loop(bare.data, request("/v1/models/iris:predict", {"instances": [[5.1, 3.5, 1.4, 0.2]]}), 48, 4.0)
    by_worker = sorted(counts)
    record_property("said", f"{sum(counts)} answers, {by_worker[0]} to {by_worker[-1]} a connection")
    assert by_worker[0] > 0.2 * sum(counts) / len(counts)


def test_what_cannot_start_says_why_in_one_line(make_stack: Callable[..., Stack], stack: Stack) -> None:
    """A port in use, a missing repository, an unknown setting and a run folder in use are each one line."""
    cases = {
        "server.listen": {"TABLESIDE__SERVER__LISTEN": f"127.0.0.1:{stack.data}"},
        "repository.path": {"TABLESIDE__REPOSITORY__PATH": "/no/such/models"},
        "TABLESIDE__SERVER__WROKERS": {"TABLESIDE__SERVER__WROKERS": "2"},
        "already has a running stack": {"TABLESIDE__SERVER__RUN_DIR": str(stack.run_dir)},
    }
    for expected, change in cases.items():
        other = make_stack(start=False, **change)
        done = other.cli("run")
        assert done.returncode != 0
        assert expected in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert stack.call("/v2/health/ready")[0] == 200


def test_a_request_is_one_log_line_under_its_id(stack: Stack) -> None:
    """Each request is one JSON line in web.log with the client's request id, and `tableside logs` finds it."""
    body = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
    stack.call("/v1/models/iris:predict", body, headers={"X-Request-ID": "find-me-1"})
    log = stack.run_dir / "log" / "web.log"
    lines = until(lambda: [json.loads(line) for line in log.read_text().splitlines() if "find-me-1" in line])
    assert len(lines) == 1
    assert (lines[0]["status"], lines[0]["model"], lines[0]["rows"]) == (200, "iris", 1)
    done = stack.cli("logs", "--request-id", "find-me-1")
    assert "iris" in done.stdout


def test_no_log_holds_a_callers_data(stack: Stack) -> None:
    """A value in a rejected body, decoded inline or in a thread, compressed or not, is in no log file."""
    marker = "MARKER4711"
    row = {"alcohol": marker, "malic_acid": None, "magnesium": 1, "proline": 1.0, "shade": marker, "aromatic": True}
    before = {log: log.stat().st_size for log in (stack.run_dir / "log").glob("*.log")}
    few, many = {"instances": [row]}, {"instances": [row] * 3000}
    for content in (few, many):
        body = json.dumps(content).encode()
        assert stack.call("/v1/models/wine:predict", body)[0] == 400
        assert (
            stack.call("/v1/models/wine:predict", gzip.compress(body), headers={"Content-Encoding": "gzip"})[0] == 400
        )
    kind = {"Content-Type": "text/csv"}
    assert stack.call("/models/wine/invocations", f"{marker},1\n".encode() * 9000, headers=kind)[0] == 400
    assert stack.call("/v1/models/wine:predict", b"\x1f\x8bcut", headers={"Content-Encoding": "gzip"})[0] == 400
    stack.call("/v2", headers={"X-Request-ID": "after-the-markers"})  # logs are buffered; this line is the last one
    logs = [stack.run_dir / "log" / name for name in ("web.log", "nginx-access.log")]
    assert until(lambda: all("after-the-markers" in log.read_text(errors="replace") for log in logs))
    for log in (stack.run_dir / "log").glob("*.log"):
        text = log.read_bytes()[before.get(log, 0) :].decode(errors="replace")
        assert marker not in text, log.name
        assert "Traceback" not in text, log.name
