"""Model processes with this environment's own interpreter: answers, types, errors, ends and restarts."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from tableside.contracts import failure_place
from tableside.contracts.environment import environment, sha256
from tableside.contracts.schema import Column, Input
from tableside.contracts.table import Table
from tableside.decoding.json_tables import from_rows
from tableside.errors import ContractBroken, DeadlineExceeded, ModelNotReady
from tableside.model_process.child import loaded_versions, wire
from tableside.model_process.child.loaded_versions import Versions
from tableside.model_process.child.wire import Message
from tableside.model_process.connection import ProcessEnded
from tableside.model_process.known_environments import CHILD, socket_path
from tableside.model_process.process_pool import HELLO, MAX_DEATHS, PrivateProcess, SupervisedProcesses
from tableside.model_process.remote_runtime import EstimatorError, EstimatorValueError, RemoteRuntime, load_request
from tableside.runtimes.sklearn import SklearnRuntime
from tableside.runtimes.trusted_types import TRUSTED
from tableside.telemetry import logs
from tests.fakes import numbers
from tests.waiting import wait_until

pytestmark = pytest.mark.processes

SCHEMA = numbers("a", "b")
ROWS = [[1.0, 2.0], [3.0, 4.5]]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with a short path, for sockets and artifacts."""
    with tempfile.TemporaryDirectory(prefix="mp-") as made:
        yield Path(made)


def dump(folder: Path, name: str, estimator: Any) -> Path:
    path = folder / f"{name}.skops"
    skops.io.dump(estimator, path)
    return path


@pytest.fixture(scope="module")
def artifact(folder: Path) -> Path:
    return dump(folder, "linear", LinearRegression().fit(np.array(ROWS), [1.0, 2.0]))


def load(path: Path, schema: Input = SCHEMA, key: str = "") -> Any:
    return load_request(key or path.name, path, sha256(path), schema, TRUSTED)


@pytest.fixture(scope="module")
def private() -> Iterator[PrivateProcess]:
    process = PrivateProcess("own", sys.executable, 120.0)
    yield process
    process.close()


def remote(process: Any, path: Path, schema: Input = SCHEMA) -> RemoteRuntime:
    request = load(path, schema)
    process.load(request, time.monotonic() + 60)
    return RemoteRuntime(process, path.name, request)


def soon(seconds: float = 120.0) -> float:
    return time.monotonic() + seconds


def test_a_process_says_what_its_environment_has(private: PrivateProcess) -> None:
    """The versions are those that this process sees, because it has the same interpreter."""
    said = private.versions_of_libraries(soon())
    here = environment()
    assert {name: said[name] for name in ("python", "machine", "scikit-learn", "numpy", "pandas")} == {
        name: here[name] for name in ("python", "machine", "scikit-learn", "numpy", "pandas")
    }


def test_answers_are_those_of_the_estimator(private: PrivateProcess, artifact: Path) -> None:
    """A matrix is answered as in memory, to the bit."""
    table = from_rows(ROWS, SCHEMA)
    got = remote(private, artifact).run("predict", table)
    own = skops.io.load(artifact, trusted=skops.io.get_untrusted_types(file=artifact)).predict(np.array(ROWS))
    assert isinstance(got, np.ndarray)
    assert got.tobytes() == own.tobytes()


DTYPES: dict[str, tuple[Column, list[Any]]] = {
    "float64": (Column("c", "FP64", "float64", True), [1.5, None, -0.0]),
    "float32": (Column("c", "FP32", "float32", True), [1.5, None, 3.0]),
    "float16": (Column("c", "FP64", "float16"), [1.5, 2.0, 3.0]),
    "int64": (Column("c", "INT64", "int64"), [1, 2**60, -3]),
    "int64 missing": (Column("c", "INT64", "int64", True), [1, None, -3]),
    "int8": (Column("c", "INT64", "int8"), [1, 2, -3]),
    "uint64": (Column("c", "INT64", "uint64"), [1, 2, 3]),
    "bool": (Column("c", "BOOL", "bool"), [True, False, True]),
    "bool missing": (Column("c", "BOOL", "object", True), [True, None, False]),
    "object": (Column("c", "BYTES", "object", True), ["a", None, "大麦"]),
    "object none": (Column("c", "BYTES", "object", True, "none"), ["a", None, "\ud800"]),
    "str": (Column("c", "BYTES", "str", True), ["a", None, ""]),
    "string": (Column("c", "BYTES", "string", True), ["a", None, ""]),
    "Int64": (Column("c", "INT64", "Int64", True), [1, None, 3]),
    "UInt8": (Column("c", "INT64", "UInt8"), [1, 2, 3]),
    "Float64": (Column("c", "FP64", "Float64", True), [1.5, None, 3.0]),
    "Float32": (Column("c", "FP32", "Float32"), [1.5, 2.0, 3.0]),
    "boolean": (Column("c", "BOOL", "boolean", True), [True, None, False]),
    "category": (Column("c", "BYTES", "category", True, categories=("a", "b"), closed=True), ["b", None, "a"]),
    "category open": (Column("c", "BYTES", "category", categories=("a", "b")), ["b", "z", "a"]),
    "category ordered": (
        Column("c", "BYTES", "category", categories=("b", "a"), closed=True, ordered=True, categories_dtype="object"),
        ["b", "a", "a"],
    ),
    "dates": (Column("c", "BYTES", "datetime64[ns]", True), ["2024-01-01T12:00:00", None, "1969-12-31"]),
    "dates with a zone": (Column("c", "BYTES", "datetime64[us, Europe/Vienna]"), ["2024-07-01T12:00:00Z"] * 3),
    "integer name": (Column("7", "FP64", "float64", integer_name=True), [1.5, 2.0, 3.0]),
    "object na": (Column("c", "BYTES", "object", True, "na"), ["a", None, "b"]),
    "category int": (Column("c", "INT64", "category", categories=(1, 2), closed=True), [2, 1, 1]),
}


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("form", ["frame", "beside"])
def test_every_dtype_goes_in_as_in_the_server(name: str, form: str) -> None:
    """The DataFrame that the model process builds has the dtype and the cells of what `to_input` builds here."""
    column, cells = DTYPES[name]
    columns = (column,) if form == "frame" else (Column("n", "FP64", "float64"), column)
    schema = Input("frame", columns)
    rows = [[cell] if form == "frame" else [float(at), cell] for at, cell in enumerate(cells)]
    for table in (from_rows(rows, schema), from_rows(rows * 50, schema)):
        assert shown(rebuilt(table)) == shown(table.to_input())


def rebuilt(table: Table) -> Any:
    """Return the input that the program of a model process builds of a table, from the bytes of its message."""
    from tableside.model_process.child.loaded_versions import Loaded

    runtime = RemoteRuntime(None, "k", ())  # type: ignore[arg-type]
    message = b"".join(map(bytes, runtime.request("predict", table)))
    header_bytes, _ = wire.sizes(message[: wire.PREFIX.size])
    body = message[wire.PREFIX.size :]
    sent = b"".join(map(bytes, load_request("k", Path("x"), "", table.schema, ())))
    size, _ = wire.sizes(sent[: wire.PREFIX.size])
    loaded = Loaded(None, wire.read_header(sent[wire.PREFIX.size : wire.PREFIX.size + size]))
    return loaded.prepare(wire.read_header(body[:header_bytes]), bytearray(body[header_bytes:]))


def shown(given: Any) -> Any:
    if not isinstance(given, pd.DataFrame):
        return (str(given.dtype), given.flags.c_contiguous, given.tobytes())
    cells = [[(type(cell).__name__, repr(cell)) for cell in given[name].tolist()] for name in given.columns]
    return list(given.columns), [repr(dtype) for dtype in given.dtypes], cells


def test_errors_of_the_estimator_arrive(private: PrivateProcess, folder: Path, artifact: Path) -> None:
    """A ValueError is one here too, so that the client gets 400; the log has the traceback of there, not its text."""
    runtime = remote(private, artifact)
    wrong = Table(numbers("a", "b", "c"), 1, None, np.zeros((1, 3)))
    with pytest.raises(EstimatorValueError, match="ValueError: X has 3 features") as caught:
        runtime.run("predict", wrong)
    log = logs.frames_without_values(caught.value)
    assert "ValueError in the model process:" in log
    assert "in _validate_data" in log or "in validate_data" in log
    assert "X has 3 features" not in log
    assert failure_place.class_of(caught.value) == "ValueError"
    with pytest.raises(EstimatorError, match="AttributeError"):
        runtime.run("transform", from_rows(ROWS, SCHEMA))


def test_an_error_of_the_estimator_has_its_step_and_column(private: PrivateProcess, folder: Path) -> None:
    """The process looks for the place, because only there the traceback has the steps of the pipeline."""
    schema = Input("frame", (Column("a", "FP64", "float64", nullable=True), Column("b", "FP64", "float64")))
    frame = pd.DataFrame(ROWS, columns=["a", "b"])
    fitted = Pipeline([("scale", StandardScaler()), ("model", LinearRegression())]).fit(frame, [1.0, 2.0])
    runtime = remote(private, dump(folder, "pipeline", fitted), schema)
    table = from_rows([[None, 2.0]], schema)
    with pytest.raises(EstimatorValueError) as caught:
        runtime.run("predict", table)
    place = failure_place.find(caught.value, table)
    assert str(place) == " in step 'model', column 'a': it takes no missing value"


@pytest.mark.slow
def test_a_large_model_takes_its_size_once(private: PrivateProcess, folder: Path) -> None:
    """A load passes the content through memory several times; what that leaves is given back to the system."""
    rows = np.random.default_rng(0).random((12000, 4))
    forest = ExtraTreesClassifier(8, random_state=0).fit(rows, np.random.default_rng(1).integers(0, 3, len(rows)))
    states = [tree.tree_.__getstate__() for tree in forest.estimators_]
    own_bytes = sum(state["nodes"].nbytes + state["values"].nbytes for state in states)
    small = dump(folder, "small", DummyClassifier().fit(rows[:3], [0, 1, 1]))
    path = dump(folder, "forest", forest)
    pid = private.call(HELLO, (), soon()).header["pid"]
    private.load(load(small), soon())  # imports what skops and scikit-learn need
    before = resident_bytes(pid)
    private.load(load(path), soon())
    assert 0.9 * own_bytes < resident_bytes(pid) - before < 1.8 * own_bytes


def resident_bytes(pid: int) -> int:
    """Return what a process has in memory without files."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon:")).split()[1])


def test_a_changed_artifact_is_not_loaded(private: PrivateProcess, folder: Path) -> None:
    """The process compares the sha256 itself."""
    path = dump(folder, "changed", LinearRegression().fit(np.array(ROWS), [1.0, 2.0]))
    request = load(path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ContractBroken, match="another sha256") as caught:
        private.load(request, soon())
    assert caught.value.failure_kind == "damaged"


def asked(versions: Versions, asker: int = 0, **header: Any) -> dict[str, Any]:
    return versions.answer(Message(header, bytearray()), wire.Writer(), asker)


def header_of(request: list[bytes]) -> dict[str, Any]:
    message = b"".join(request)
    size, _ = wire.sizes(message)
    return wire.read_header(message[wire.PREFIX.size : wire.PREFIX.size + size])


def test_versions_that_nobody_serves_are_dropped(
    folder: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """What one worker of several serves stays. Without any worker everything stays, for those that start next."""
    monkeypatch.setattr(loaded_versions, "KEEP_S", 0.0)
    monkeypatch.setattr(loaded_versions, "LOOK_EVERY_S", 0.0)
    state = folder / "served.json"
    versions = Versions(str(state))
    for key in ("one", "two", "three"):
        assert asked(versions, **header_of(load(artifact, key=key))) == {"ok": True}

    def kept() -> list[str]:
        versions.drop_unserved()
        return [each["key"] for each in json.loads(state.read_bytes())]

    assert kept() == ["one", "two", "three"]
    asked(versions, 1, op="serve", keys=["one"])
    asked(versions, 2, op="serve", keys=["two"])
    assert kept() == ["one", "two"]
    assert asked(versions, op="run", key="three") == {"unknown": True}
    versions.forget(2)
    assert kept() == ["one"]
    versions.forget(1)
    assert kept() == ["one"]


def test_a_version_stays_for_a_while_without_a_worker_that_serves_it(artifact: Path) -> None:
    """A worker loads a version some time before it says that it serves it."""
    versions = Versions()
    asked(versions, **header_of(load(artifact, key="new")))
    asked(versions, 1, op="serve", keys=[])
    versions.drop_unserved()
    assert asked(versions, op="run", key="new") != {"unknown": True}


def test_a_process_with_other_packages_loads_nothing_that_was_checked_before(artifact: Path) -> None:
    """After an installation into a running environment, answers could differ without an error."""
    libraries = {**environment(), "numpy": "0.1"}
    request = load_request("k", artifact, sha256(artifact), SCHEMA, TRUSTED, {}, libraries)
    refused = asked(Versions(), **header_of(request))
    assert f"numpy {environment()['numpy']} was 0.1" in refused["refused"]
    assert "supervisorctl restart" in refused["refused"]
    assert refused["kind"] == "environment"
    same = load_request("k", artifact, sha256(artifact), SCHEMA, TRUSTED, {}, {"numpy": environment()["numpy"]})
    assert asked(Versions(), **header_of(same)) == {"ok": True}


class Unknown(ClassifierMixin, BaseEstimator):
    """A class that nobody trusts."""


def test_types_that_nobody_trusts_are_not_loaded(private: PrivateProcess, folder: Path) -> None:
    """The refusal names them."""
    path = dump(folder, "unknown", Unknown())
    with pytest.raises(ContractBroken, match="types that are not trusted: .*Unknown") as caught:
        private.load(load(path), soon())
    assert caught.value.failure_kind == "untrusted"


def test_an_interpreter_that_is_not_there_is_named() -> None:
    with pytest.raises(ContractBroken, match="/none/python cannot be started"):
        PrivateProcess("old", "/none/python", 1.0)


class Started:
    """Processes started as supervisord starts them."""

    def __init__(self, folder: Path, count: int, call_timeout_s: float = 120.0) -> None:
        self.folder, self.call_timeout_s = folder, call_timeout_s
        self.paths = [str(socket_path(folder, "t", number)) for number in range(count)]
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.made: list[SupervisedProcesses] = []
        for number in range(count):
            self.start(number)

    def start(self, number: int) -> None:
        self.running[number] = subprocess.Popen(
            [sys.executable, "-I", str(CHILD), "--socket", self.paths[number], "--state", str(self.folder / "s.json"),
             "--call-timeout-s", str(self.call_timeout_s)],
        )  # fmt: skip
        assert wait_until(lambda: self.listens(number), 120)

    def listens(self, number: int) -> bool:
        return SupervisedProcesses("t", [self.paths[number]], 0, 1.0).running() == 1

    def processes(self, first: int = 0) -> SupervisedProcesses:
        self.made.append(SupervisedProcesses("t", self.paths, first, self.call_timeout_s))
        return self.made[-1]

    def end(self, number: int, sign: signal.Signals) -> int:
        self.running[number].send_signal(sign)
        return self.running[number].wait(120)


@pytest.fixture
def started() -> Iterator[Callable[..., Started]]:
    made: list[Started] = []
    with tempfile.TemporaryDirectory(prefix="mp-") as folder:

        def start(count: int, **more: Any) -> Started:
            made.append(Started(Path(folder), count, **more))
            return made[-1]

        yield start
        for each in made:
            for pool in each.made:
                pool.close()
            for process in each.running.values():
                process.kill()
                process.wait()


@pytest.mark.slow
def test_another_process_answers_while_one_is_away(started: Callable[..., Started], artifact: Path) -> None:
    """SIGKILL of the preferred process loses nothing; when it is back, it answers again, with the version loaded."""
    stack = started(2)
    processes = stack.processes()
    runtime, table = remote(processes, artifact), from_rows(ROWS, SCHEMA)
    expected = np.asarray(runtime.run("predict", table))
    stack.end(0, signal.SIGKILL)
    assert np.array_equal(np.asarray(runtime.run("predict", table)), expected)
    assert processes.running() == 1
    stack.start(0)
    assert processes.running() == 2
    assert np.array_equal(np.asarray(runtime.run("predict", table)), expected)


@pytest.mark.slow
def test_requests_wait_while_no_process_runs(started: Callable[..., Started], artifact: Path) -> None:
    """With one process, requests wait for its successor, which loads its versions before it listens."""
    stack = started(1)
    runtime, table = remote(stack.processes(), artifact), from_rows(ROWS, SCHEMA)
    expected = np.asarray(runtime.run("predict", table))
    assert stack.end(0, signal.SIGTERM) == 0
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(runtime.run("predict", table)))
    waiting.start()
    stack.start(0)
    waiting.join(120)
    assert np.array_equal(answers[0], expected)


def test_without_a_process_the_error_names_the_environment() -> None:
    """A request that finds none until its deadline gets 503, not a hanging connection."""
    processes = SupervisedProcesses("old", ["/tmp/none-there.sock"], 0, 1.0)
    with pytest.raises(ModelNotReady, match="no model process of the environment 'old' is running"):
        processes.call((b"x",), (), time.monotonic() + 0.1)
    assert processes.running() == 0


def test_versions_of_a_dead_environment_wait_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first waits as long as a load may take; the next ones look once. A process that answered ends that."""
    pauses: list[float] = []
    monkeypatch.setattr("tableside.process.plain_sockets.pause", lambda pause_s: pauses.append(time.sleep(pause_s)))  # type: ignore[func-returns-value]
    processes = SupervisedProcesses("old", ["/tmp/none-there.sock"], 0, 1.0)
    counts = []
    for _ in range(3):
        with pytest.raises(ModelNotReady, match="no model process of the environment 'old' is running"):
            processes.versions_of_libraries(time.monotonic() + 0.3)
        counts.append(len(pauses))
    assert counts[0] > 0
    assert counts == [counts[0]] * 3


SLOW_ROWS = 500_000


@pytest.fixture(scope="module")
def slow(folder: Path) -> Path:
    """A forest that takes seconds for SLOW_ROWS rows."""
    chance = np.random.default_rng(0)
    rows = chance.normal(size=(500, 2))
    return dump(folder, "slow", RandomForestClassifier(300, random_state=0).fit(rows, rows[:, 0] > 0))


@pytest.mark.slow
def test_a_restart_finishes_the_call_that_runs(started: Callable[..., Started], slow: Path) -> None:
    """SIGTERM waits for the answer and then ends the process."""
    stack = started(1)
    runtime = remote(stack.processes(), slow)
    table = Table(SCHEMA, SLOW_ROWS, None, np.random.default_rng(1).normal(size=(SLOW_ROWS, 2)))
    answers: list[Any] = []
    calling = threading.Thread(target=lambda: answers.append(runtime.run("predict", table)))
    calling.start()
    time.sleep(0.5)
    assert not answers
    assert stack.end(0, signal.SIGTERM) == 0
    calling.join(120)
    assert len(answers[0]) == SLOW_ROWS


def test_a_request_that_ends_processes_fails_at_last(folder: Path) -> None:
    """A call is sent to another process when its own ends, but not for ever: its row may be what ends them."""
    path = str(folder / "ends.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()

        def end_at_each_request() -> None:
            for _ in range(MAX_DEATHS):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)

        ending = threading.Thread(target=end_at_each_request)
        ending.start()
        processes = SupervisedProcesses("t", [path], 0, 20.0)
        with pytest.raises(ProcessEnded):
            processes.call(wire.Writer().message({"op": "run"}), (), soon())
        ending.join(20)
    assert processes.retries == MAX_DEATHS


def test_a_process_that_ended_before_it_read_the_request_is_not_counted(folder: Path) -> None:
    """Killed processes accept connections for some milliseconds more. The request cannot be what ended them."""
    path = str(folder / "unread.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()

        def end_before_reading_then_answer() -> None:
            for _ in range(2 * MAX_DEATHS):
                listener.accept()[0].close()
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                for part in wire.Writer().message({"ok": True}):
                    connection.sendall(part)

        ending = threading.Thread(target=end_before_reading_then_answer)
        ending.start()
        processes = SupervisedProcesses("t", [path], 0, 20.0)
        assert processes.call(wire.Writer().message({"op": "run"}), (), soon()).header["ok"] is True
        ending.join(20)
        processes.close()
    assert processes.retries == 2 * MAX_DEATHS


@pytest.mark.slow
def test_a_call_that_hangs_ends_at_its_deadline(started: Callable[..., Started], slow: Path) -> None:
    """The worker gives up at the time limit, and the process ends itself, so that supervisord starts another."""
    stack = started(1, call_timeout_s=1.0)
    runtime = remote(stack.processes(), slow)
    rows = 8 * SLOW_ROWS  # the process looks for calls that hang only now and then
    table = Table(SCHEMA, rows, None, np.zeros((rows, 2)))
    with pytest.raises(DeadlineExceeded):
        runtime.run("predict", table)
    assert stack.running[0].wait(120) == 70


def test_supervised_and_private_processes_agree(private: PrivateProcess, artifact: Path, folder: Path) -> None:
    """The golden rows, replayed in a private process by the preflight, prove the supervised one too."""
    table = from_rows(ROWS, SCHEMA)
    own = SklearnRuntime(skops.io.load(artifact, trusted=skops.io.get_untrusted_types(file=artifact)))
    assert np.array_equal(
        np.asarray(remote(private, artifact).run("predict", table)),
        np.asarray(own.run("predict", own.prepare(table))),
    )
